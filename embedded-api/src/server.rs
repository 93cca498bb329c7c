//! A request from its head to its answer: identify, authorize, do.
//!
//! Nothing is read of a body, and nothing of the store is shown, before the caller is authorized.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::authorize::{Action, Subject, Verdict, authorize};
use crate::lifecycle::Birth;
use crate::render::Form;
use crate::route::{self, Query, Resource, Route};
use crate::status::{ApiError, FieldError, respond};
use crate::store::Store;
use crate::tokens::{ISSUER, Tokens};
use crate::{body, discovery, reviews, verbs};

/// Judges objects beyond their metadata: group, kind and object to nothing, or to what is malformed.
pub type Validate = Arc<dyn Fn(&str, &str, &Value) -> Result<(), Vec<FieldError>> + Send + Sync>;

/// What requests share.
pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) tokens: Tokens,
    pub(crate) admin_token: String,
    pub(crate) validate: Validate,
    pub(crate) clock: fn() -> OffsetDateTime,
    pub(crate) stop: CancellationToken,
}

/// A request's head, understood and allowed.
pub(crate) struct Call {
    pub(crate) verb: &'static str,
    pub(crate) resource: Resource,
    pub(crate) query: Query,
    pub(crate) form: Form,
    /// The node that the caller is limited to.
    pub(crate) node: Option<String>,
    pub(crate) content_type: String,
}

impl Server {
    /// Seconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from((self.clock)().unix_timestamp()).unwrap_or(0)
    }

    /// The time as objects have it.
    pub(crate) fn timestamp(&self) -> String {
        self.timestamp_after(0)
    }

    /// The time in some seconds as objects have it.
    pub(crate) fn timestamp_after(&self, seconds: u64) -> String {
        let then = (self.clock)() + Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        then.replace_nanosecond(0)
            .unwrap_or(then)
            .format(&Rfc3339)
            .unwrap_or_default()
    }

    /// What a new object is born with.
    pub(crate) fn birth(&self) -> Birth {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let letter = |_| LETTERS[rand::random_range(0..LETTERS.len())] as char;
        Birth {
            now: self.timestamp(),
            uid: uuid::Uuid::new_v4().to_string(),
            suffix: (0..5).map(letter).collect(),
        }
    }

    /// Answers a request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self
            .handle(request)
            .await
            .unwrap_or_else(|error| error.response());
        tracing::debug!(%method, path, status = response.status().as_u16(), "api request");
        Ok(response)
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let subject = self.identify(request.headers())?;
        let path = request.uri().path().to_owned();
        match route::parse(&path) {
            Ok(Route::Health) => {
                permit(&subject, Action::Public, &path)?;
                Ok(Response::new(Body::from("ok")))
            }
            Ok(Route::Version) => {
                permit(&subject, Action::Public, &path)?;
                Ok(respond(StatusCode::OK, &discovery::version()))
            }
            Ok(Route::Discovery) => {
                permit(&subject, Action::Discover, &path)?;
                Ok(respond(StatusCode::OK, &discovery::document(&path)?))
            }
            Ok(Route::Review(review)) => self.review(&subject, review, request).await,
            Ok(Route::Resource(resource)) => self.objects(&subject, resource, request).await,
            Err(error) => {
                permit(&subject, Action::Discover, &path)?;
                Err(error)
            }
        }
    }

    fn identify(&self, headers: &http::HeaderMap) -> Result<Subject, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(Subject::Anonymous);
        };
        let value = value.to_str().map_err(|_| ApiError::Unauthorized)?;
        let token = value
            .strip_prefix("Bearer ")
            .ok_or(ApiError::Unauthorized)?
            .trim();
        if aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), self.admin_token.as_bytes())
            .is_ok()
        {
            return Ok(Subject::Admin);
        }
        let verified = self
            .tokens
            .verify(token, &[ISSUER.to_owned()], self.now(), &self.store.snapshot());
        match verified {
            Ok((account, _)) => Ok(Subject::ServiceAccount(account)),
            Err(error) => {
                tracing::info!(%error, "a bearer token was refused");
                Err(ApiError::Unauthorized)
            }
        }
    }

    async fn review(
        &self,
        subject: &Subject,
        review: &'static str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, ApiError> {
        let action = if review == "tokenreviews" {
            Action::ReviewToken
        } else {
            Action::AskAboutSelf
        };
        permit(subject, action, review)?;
        if request.method() != Method::POST {
            return Err(ApiError::MethodNotAllowed);
        }
        let asked = body::parse(&body::read(request.into_body()).await?)?;
        let answer = match review {
            "tokenreviews" => reviews::token(self, &asked),
            "selfsubjectreviews" => reviews::whoami(subject),
            _ => reviews::access(subject, &asked),
        };
        Ok(respond(StatusCode::CREATED, &answer))
    }

    async fn objects(
        &self,
        subject: &Subject,
        resource: Resource,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, ApiError> {
        let query = Query::parse(request.uri().query());
        let verb = verb(request.method(), &resource, &query)?;
        let action = Action::Objects {
            verb,
            kind: resource.kind,
            namespace: resource.namespace.as_deref(),
            subresource: resource.subresource.as_deref(),
        };
        let node = match authorize(subject, action) {
            Verdict::Allow => None,
            Verdict::OnNode(node) => Some(node),
            Verdict::Deny => return Err(denied(subject, verb, &resource)),
        };
        let text = |name| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let call = Call {
            verb,
            resource,
            query,
            form: Form::accepted(&text(header::ACCEPT)),
            node,
            content_type: text(header::CONTENT_TYPE),
        };
        verbs::run(self, call, request.into_body()).await
    }
}

fn permit(subject: &Subject, action: Action<'_>, what: &str) -> Result<(), ApiError> {
    match authorize(subject, action) {
        Verdict::Allow => Ok(()),
        _ => Err(ApiError::Forbidden(format!(
            "forbidden: User {:?} cannot use {what:?}",
            subject.user()
        ))),
    }
}

fn denied(subject: &Subject, verb: &str, resource: &Resource) -> ApiError {
    let scope = match &resource.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".into(),
    };
    let name = resource
        .name
        .as_deref()
        .map(|name| format!(" {name:?}"))
        .unwrap_or_default();
    let part = resource
        .subresource
        .as_deref()
        .map(|part| format!("/{part}"))
        .unwrap_or_default();
    ApiError::Forbidden(format!(
        "{}{name} is forbidden: User {:?} cannot {verb} resource \"{}{part}\" in API group {:?} {scope}",
        resource.kind.resource,
        subject.user(),
        resource.kind.plural,
        resource.kind.group,
    ))
}

/// The verb as Kubernetes names it.
fn verb(method: &Method, resource: &Resource, query: &Query) -> Result<&'static str, ApiError> {
    let status = resource.subresource.as_deref();
    match status {
        None => {}
        Some("status") if resource.kind.status => {}
        Some("token") if resource.kind.kind == "ServiceAccount" && method == Method::POST => {}
        Some("finalize") if resource.kind.kind == "Namespace" && method == Method::PUT => {}
        Some(_) => return Err(ApiError::NoSuchPath),
    }
    Ok(
        match (method.as_str(), resource.name.is_some(), query.flag("watch")) {
            ("GET" | "HEAD", true, false) => "get",
            ("GET", _, true) => "watch",
            ("GET" | "HEAD", false, false) => "list",
            ("POST", false, _) => "create",
            ("POST", true, _) if status == Some("token") => "create",
            ("PUT", true, _) => "update",
            ("PATCH", true, _) => "patch",
            ("DELETE", true, _) if status.is_none() => "delete",
            ("DELETE", false, _) if resource.kind.namespaced == resource.namespace.is_some() => {
                "deletecollection"
            }
            _ => return Err(ApiError::MethodNotAllowed),
        },
    )
}
