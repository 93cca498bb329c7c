//! `check`: everything that is not as it should be, each finding with its remedy.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;
use serde_json::Value;
use trefoil_api::names::GATEWAY_CONTROLLER;
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
    for (route, reason) in unapplied(planes).await? {
        add(
            format!("{route}: {reason}"),
            "change the route, or give its Service a waypoint: `trefoilctl waypoint apply`",
        );
    }
    for finding in findings_of_control_plane(planes).await? {
        add(
            finding,
            "`trefoilctl waypoint list` shows the waypoints; labels trefoil.dev/use-waypoint choose them",
        );
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

/// Routes with a condition of ours that does not hold.
async fn unapplied(planes: &Planes) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for kind in ["httproutes", "grpcroutes"] {
        let kind = Kind::named(kind)?;
        let routes = match kind.api(planes.client(), None).list(&ListParams::default()).await {
            Ok(routes) => routes,
            // Not a kind of this cluster.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error.into()),
        };
        for route in routes {
            let name = format!(
                "{} {}/{}",
                kind.singular(),
                route.namespace().unwrap_or_default(),
                route.name_any()
            );
            for parent in list(&route.data["status"], "parents") {
                let ours = text(&parent, "controllerName") == GATEWAY_CONTROLLER;
                let conditions = list(&parent, "conditions");
                for one in conditions
                    .iter()
                    .filter(|one| ours && text(one, "status") == "False")
                {
                    let reason = format!("{}: {}", text(one, "reason"), text(one, "message"));
                    found.push((name.clone(), reason));
                }
            }
        }
    }
    Ok(found)
}

/// What the control plane finds wrong with single services and pods.
async fn findings_of_control_plane(planes: &Planes) -> anyhow::Result<Vec<String>> {
    let mut findings = BTreeSet::new();
    let all = planes.all().await?;
    for plane in all.iter().filter(|plane| plane.role == Role::ControlPlane) {
        // One that does not answer is among what is unhealthy.
        let said = plane.ask(planes, "status").await.unwrap_or_default();
        let found = list(&said["overview"], "findings");
        findings.extend(found.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    Ok(findings.into_iter().collect())
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
