//! `check`: everything that is not as it should be, each finding with its remedy.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use network_policies::Facts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trefoil_api::plane::Mode;

use crate::output::{Format, Tone, toned};
use crate::planes::Planes;
use crate::status::Remark;
use crate::{look, status, why};

mod authority;
mod network_policies;
mod policies;
pub(crate) mod pre;
mod versions;
mod waypoints;
mod webhook;

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// What.
    finding: String,
    /// What to do about it.
    remedy: String,
}

/// What `check` has come to.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// What is found, each with its remedy.
    pub(crate) findings: Vec<Finding>,
    /// What is not for us to see.
    unseen: Vec<String>,
}

/// `check`; the exit code says whether anything was found.
pub(crate) async fn run(planes: &Planes, format: Format) -> anyhow::Result<i32> {
    let Checked { findings, unseen } = gather(planes).await?;
    for what in unseen {
        eprintln!("could not look at {what}");
    }
    format.print(&findings, || render(&findings))?;
    Ok(i32::from(!findings.is_empty()))
}

/// Looks everywhere.
pub(crate) async fn gather(planes: &Planes) -> anyhow::Result<Checked> {
    let mut findings = Vec::new();
    let mut add = |finding: String, remedy: &str| {
        findings.push(Finding {
            finding,
            remedy: remedy.into(),
        })
    };
    let status = status::gather(planes).await?;
    let mut unseen = Vec::new();
    let mut others = versions::skew(&status.versions());
    others.extend(authority::findings(planes).await?);
    others.extend(webhook::findings(planes, &mut unseen).await?);
    others.extend(about_network_policies(planes, &mut unseen).await?);
    for complaint in status.unhealthy {
        // What is wrong with a policy is found below, with its remedy.
        if !status.of_policies.contains(&complaint) {
            add(
                complaint,
                "see the log of the process named, and `trefoilctl status`",
            );
        }
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
    for (finding, remedy) in policies::findings(planes.client()).await? {
        add(finding, &remedy);
    }
    for (route, reason) in waypoints::unapplied(planes).await? {
        add(
            format!("{route}: {reason}"),
            "as its message says, or change the route; `trefoilctl waypoint apply` makes a waypoint",
        );
    }
    for finding in waypoints::findings(planes).await? {
        let remedy = if finding.starts_with("networkpolicy ") {
            "correct its spec; until then nothing comes into the pods that it selects"
        } else {
            "`trefoilctl waypoint list` shows the waypoints; labels trefoil.dev/use-waypoint choose them"
        };
        add(finding, remedy);
    }
    for Remark { pod, remark } in status.remarks {
        add(
            format!("pod {pod}: {remark}"),
            "restart the pod, or change the mode label of it or its namespace",
        );
    }
    for port in &status.undeclared {
        add(
            status::undeclared_shown(port),
            "declare what the Service's port speaks: appProtocol, or a name such as tcp-NAME",
        );
    }
    for (finding, remedy) in others {
        add(finding, &remedy);
    }
    for fault in why::faults(planes).await? {
        add(fault, "`trefoilctl why` from or to this pod says more");
    }
    Ok(Checked { findings, unseen })
}

/// All objects of a kind. See [`look::list`].
async fn listed<K>(planes: &Planes, what: &str, unseen: &mut Vec<String>) -> anyhow::Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    look::list(&Api::all(planes.client().clone()), what, unseen).await
}

async fn about_network_policies(
    planes: &Planes,
    unseen: &mut Vec<String>,
) -> anyhow::Result<Vec<(String, String)>> {
    let policies = listed(planes, "NetworkPolicies", unseen).await?;
    if policies.is_empty() {
        return Ok(Vec::new());
    }
    let namespaces: Vec<Namespace> = listed(planes, "Namespaces", unseen).await?;
    let pods: Vec<Pod> = listed(planes, "Pods", unseen).await?;
    Ok(network_policies::findings(&Facts::of(
        &namespaces,
        &pods,
        policies,
    )))
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
