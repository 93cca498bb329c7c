//! `check`: everything that is not as it should be, each finding with its remedy.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;
use serde_json::Value;
use trefoil_api::plane::Mode;

use crate::config::{list, text};
use crate::kinds::Kind;
use crate::output::{Format, Tone, toned};
use crate::planes::{Planes, Role};
use crate::{status, why};

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
struct Finding {
    /// What.
    finding: String,
    /// What to do about it.
    remedy: String,
}

/// Looks everywhere; the exit code says whether anything was found.
pub(crate) async fn run(planes: &Planes, format: Format) -> anyhow::Result<i32> {
    let mut findings = Vec::new();
    let mut add = |finding: String, remedy: &str| {
        findings.push(Finding {
            finding,
            remedy: remedy.into(),
        })
    };
    for complaint in status::gather(planes).await?.unhealthy {
        add(
            complaint,
            "see the log of the process named, and `trefoilctl status`",
        );
    }
    for namespace in Api::<Namespace>::all(planes.client().clone())
        .list(&ListParams::default())
        .await?
    {
        if let Err(error) = Mode::of(Some(namespace.labels())) {
            let name = namespace.name_any();
            let remedy = format!("trefoilctl label namespace {name} trefoil.dev/dataplane-mode=ambient");
            add(format!("namespace {name}: {error}"), &remedy);
        }
    }
    for kind in ["authorizationpolicies", "peerauthentications"] {
        for (policy, reason) in refused(planes, kind).await? {
            add(
                format!("{policy}: {reason}"),
                "change the policy as its status says; until then its last good version is in force",
            );
        }
    }
    for (pod, remark) in remarks(planes).await? {
        add(
            format!("pod {pod}: {remark}"),
            "restart the pod, or change the mode label of it or its namespace",
        );
    }
    for fault in why::faults(planes).await? {
        add(fault, "`trefoilctl why` from or to this pod says more");
    }
    format.print(&findings, || render(&findings))?;
    Ok(i32::from(!findings.is_empty()))
}

/// Policies with a condition that does not hold.
async fn refused(planes: &Planes, kind: &str) -> anyhow::Result<Vec<(String, String)>> {
    let kind = Kind::named(kind)?;
    let mut refused = Vec::new();
    for object in kind
        .api(planes.client(), None)
        .list(&ListParams::default())
        .await?
    {
        let conditions = object
            .data
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .cloned();
        for condition in conditions
            .unwrap_or_default()
            .iter()
            .filter(|one| text(one, "status") == "False")
        {
            let name = format!(
                "{} {}/{}",
                kind.singular(),
                object.namespace().unwrap_or_default(),
                object.name_any()
            );
            refused.push((
                name,
                format!("{}: {}", text(condition, "reason"), text(condition, "message")),
            ));
        }
    }
    Ok(refused)
}

/// What agents say about pods that are not where their labels ask.
async fn remarks(planes: &Planes) -> anyhow::Result<Vec<(String, String)>> {
    let mut remarks = Vec::new();
    for agent in planes
        .all()
        .await?
        .iter()
        .filter(|plane| plane.role == Role::Agent)
    {
        // One that does not answer is among what is unhealthy.
        let pods = list(&agent.ask(planes, "status").await.unwrap_or_default(), "pods");
        let remarked = pods.iter().filter(|pod| !text(pod, "remark").is_empty());
        remarks.extend(remarked.map(|pod| {
            (
                format!("{}/{}", text(pod, "namespace"), text(pod, "name")),
                text(pod, "remark").to_owned(),
            )
        }));
    }
    Ok(remarks)
}

fn render(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return toned(Tone::Good, "nothing is found wrong");
    }
    let line = |finding: &Finding| {
        format!(
            "{} {}\n    remedy: {}\n",
            toned(Tone::Bad, "✗"),
            finding.finding,
            finding.remedy
        )
    };
    findings.iter().map(line).collect()
}
