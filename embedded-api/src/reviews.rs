//! Who is this token's, what may I do, give me a token: the reviews and the `token` subresource.

use serde_json::{Value, json};

use crate::authorize::{self, Account, Action, Subject, Verdict};
use crate::kinds;
use crate::server::Server;
use crate::status::{ApiError, FieldError};
use crate::store::{Key, Snapshot};
use crate::tokens::ISSUER;

/// Seconds that a token may be asked for: ten minutes as in Kubernetes is too long for tests of expiry.
const SHORTEST: u64 = 1;
const LONGEST: u64 = 365 * 24 * 3600;
const USUAL: u64 = 3600;

/// `TokenReview`.
#[must_use]
pub(crate) fn token(server: &Server, review: &Value) -> Value {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let mut audiences = texts(&review["spec"]["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let verified = server
        .tokens
        .verify(token, &audiences, server.now(), &server.store.snapshot());
    let status = match verified {
        Ok((account, matching)) => {
            json!({ "authenticated": true, "audiences": matching, "user": user(&Subject::ServiceAccount(account)) })
        }
        Err(error) => json!({ "authenticated": false, "user": {}, "error": error.to_string() }),
    };
    let mut answer = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "metadata": { "creationTimestamp": null }, "status": status,
    });
    // The token is not repeated.
    answer["spec"] = json!({ "audiences": review["spec"]["audiences"] });
    answer
}

/// `SelfSubjectReview`.
#[must_use]
pub(crate) fn whoami(subject: &Subject) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
        "metadata": { "creationTimestamp": null }, "status": { "userInfo": user(subject) },
    })
}

/// `SelfSubjectAccessReview`.
#[must_use]
pub(crate) fn access(subject: &Subject, review: &Value) -> Value {
    let asked = &review["spec"]["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().filter(|text| !text.is_empty());
    let kind = authorize::kind_of(
        text("group").unwrap_or_default(),
        text("resource").unwrap_or_default(),
    );
    let verdict = match kind {
        Some(kind) => authorize::authorize(
            subject,
            Action::Objects {
                verb: text("verb").unwrap_or_default(),
                kind,
                namespace: text("namespace"),
                subresource: text("subresource"),
            },
        ),
        None if *subject == Subject::Admin => Verdict::Allow,
        None => Verdict::Deny,
    };
    let mut status = json!({ "allowed": verdict != Verdict::Deny });
    if let Verdict::OnNode(node) = verdict {
        status["reason"] = format!("for pods of node {node}, annotations and status only").into();
    }
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "metadata": { "creationTimestamp": null }, "spec": review["spec"], "status": status,
    })
}

/// `POST …/serviceaccounts/NAME/token`.
///
/// # Errors
/// When there is no such account, or the pod that it is to be bound to is another account's.
pub(crate) fn request(
    server: &Server,
    namespace: &str,
    name: &str,
    request: &Value,
) -> Result<Value, ApiError> {
    let snapshot = server.store.snapshot();
    let kind = &kinds::SERVICE_ACCOUNT;
    let account = snapshot
        .get(&Key::new(kind.resource, namespace, name))
        .ok_or_else(|| ApiError::NotFound {
            kind,
            name: name.into(),
        })?;
    let mut account = Account {
        namespace: namespace.into(),
        name: name.into(),
        uid: account["metadata"]["uid"].as_str().unwrap_or_default().into(),
        pod: None,
        node: None,
    };
    let bound = &request["spec"]["boundObjectRef"];
    if !bound.is_null() {
        bind(&snapshot, &mut account, bound)?;
    }
    let mut audiences = texts(&request["spec"]["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let seconds = request["spec"]["expirationSeconds"].as_u64().unwrap_or(USUAL);
    if !(SHORTEST..=LONGEST).contains(&seconds) {
        let cause = FieldError::new("spec.expirationSeconds", "must be between 1 second and 365 days");
        return Err(ApiError::Invalid {
            kind,
            name: name.into(),
            causes: vec![cause],
        });
    }
    let now = server.now();
    let token = server
        .tokens
        .issue(&account, &audiences, now, seconds)
        .map_err(|error| ApiError::BadRequest(error.to_string()))?;
    Ok(json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "metadata": { "name": name, "namespace": namespace, "creationTimestamp": server.timestamp() },
        "spec": { "audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound },
        "status": { "token": token, "expirationTimestamp": server.timestamp_after(seconds) },
    }))
}

fn bind(snapshot: &Snapshot, account: &mut Account, bound: &Value) -> Result<(), ApiError> {
    if bound["kind"] != "Pod" {
        return Err(ApiError::BadRequest("tokens can be bound to pods only".into()));
    }
    let name = bound["name"].as_str().unwrap_or_default();
    let pod = snapshot
        .get(&Key::new(kinds::POD.resource, &account.namespace, name))
        .ok_or_else(|| ApiError::NotFound {
            kind: &kinds::POD,
            name: name.into(),
        })?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    if bound["uid"]
        .as_str()
        .is_some_and(|wanted| !wanted.is_empty() && wanted != uid)
    {
        let why = "the uid in the bound object reference is another pod's".into();
        return Err(ApiError::Conflict {
            kind: &kinds::POD,
            name: name.into(),
            why,
        });
    }
    if pod["spec"]["serviceAccountName"] != account.name.as_str() {
        return Err(ApiError::BadRequest(format!(
            "cannot bind token for serviceaccount {:?} to pod {name:?} running with different serviceaccount name",
            account.name
        )));
    }
    account.pod = Some((name.into(), uid.into()));
    account.node = pod["spec"]["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty())
        .map(str::to_owned);
    Ok(())
}

fn user(subject: &Subject) -> Value {
    let mut user = json!({ "username": subject.user(), "groups": subject.groups() });
    if let Subject::ServiceAccount(account) = subject {
        user["uid"] = account.uid.clone().into();
        let mut extra = json!({});
        if let Some((name, uid)) = &account.pod {
            extra["authentication.kubernetes.io/pod-name"] = json!([name]);
            extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
        }
        if let Some(node) = &account.node {
            extra["authentication.kubernetes.io/node-name"] = json!([node]);
        }
        user["extra"] = extra;
    }
    user
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
