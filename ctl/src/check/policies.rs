//! Policies that do not do what they say, or say what means nothing here.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::Value;
use trefoil_api::Identity;

use crate::kinds::Kind;
use crate::object::conditions::{Unmet, unmet};

#[cfg(test)]
mod tests;

/// What is found, each with its remedy.
pub(super) async fn findings(client: &Client) -> anyhow::Result<Vec<(String, String)>> {
    let accounts = Api::<ServiceAccount>::all(client.clone())
        .list(&ListParams::default())
        .await?;
    let accounts: BTreeSet<(String, String)> = accounts
        .iter()
        .map(|account| (account.namespace().unwrap_or_default(), account.name_any()))
        .collect();
    let mut findings = Vec::new();
    for kind in ["authorizationpolicies", "peerauthentications"] {
        let kind = Kind::named(kind)?;
        let policies = kind.api(client, None).list(&ListParams::default()).await?;
        for policy in policies {
            let name = format!(
                "{} {}/{}",
                kind.singular(),
                policy.namespace().unwrap_or_default(),
                policy.name_any()
            );
            findings.extend(unmet(&policy.data).iter().map(|one| {
                let Unmet { reason, message, .. } = one;
                (format!("{name}: {reason}: {message}"), remedy(one).to_owned())
            }));
            for principal in nobodies(&policy.data, &accounts) {
                findings.push((
                    format!("{name}: principal {principal}: there is no such service account, so that it is nobody"),
                    "correct its spelling, or make the service account".to_owned(),
                ));
            }
        }
    }
    Ok(findings)
}

/// What to do about a condition that does not hold. Its message says what holds until then.
fn remedy(unmet: &Unmet) -> &'static str {
    match unmet.reason.as_str() {
        "NeedsHttp" => "give the workloads a waypoint (`trefoilctl waypoint apply`) or sidecars",
        _ => "correct the policy as its status says",
    }
}

/// Principals that a policy names one by one, of service accounts that there are not.
fn nobodies(policy: &Value, accounts: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut named = BTreeSet::new();
    principals(policy.get("spec").unwrap_or(&Value::Null), &mut named);
    let is_nobody = |principal: &String| {
        let identity: Result<Identity, _> = format!("spiffe://{principal}").parse();
        identity.is_ok_and(|identity| {
            !accounts.contains(&(
                identity.namespace().to_owned(),
                identity.service_account().to_owned(),
            ))
        })
    };
    named.into_iter().filter(is_nobody).collect()
}

/// Every text under a field that holds principals.
fn principals(value: &Value, named: &mut BTreeSet<String>) {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    match value {
        Value::Array(items) => items.iter().for_each(|item| principals(item, named)),
        Value::Object(fields) => {
            let of_principals = fields.get("key").and_then(Value::as_str) == Some("source.principal");
            for (field, value) in fields {
                match field.as_str() {
                    "principals" | "notPrincipals" => named.extend(texts(value)),
                    "values" | "notValues" if of_principals => named.extend(texts(value)),
                    _ => principals(value, named),
                }
            }
        }
        _ => {}
    }
}
