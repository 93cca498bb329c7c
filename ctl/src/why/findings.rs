//! What the agent, the kernel and the planes hold about an end.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use trefoil_api::proto::trefoil::v1::Plane as PlaneKind;
use trefoil_cni::kernel;
use trefoil_cni::namespace::Namespace;

use super::Layer;
use super::ends::End;
use super::target::Target;
use crate::config::{list, text};
use crate::planes::{Plane, Planes, Role};
use trefoil_local::causes::causes;
use trefoil_local::mesh::{Mesh, NETNS_ROOT};

/// What is held in one layer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// The layer.
    pub(crate) layer: Layer,
    /// Of which end.
    pub(crate) of: String,
    /// As it should be.
    pub(crate) well: bool,
    /// What it is.
    pub(crate) detail: String,
}

pub(super) fn finding(layer: Layer, end: &End, well: bool, detail: impl Into<String>) -> Finding {
    Finding {
        layer,
        of: end.name.clone(),
        well,
        detail: detail.into(),
    }
}

/// What is held about an end, and the plane to ask about its connections.
#[derive(Debug)]
pub(super) struct Held {
    /// Layer by layer.
    pub(super) findings: Vec<Finding>,
    /// Its plane, if it has one and that is as it should be.
    pub(super) plane: Option<Plane>,
    /// It has a plane, be it well or not.
    pub(super) meshed: bool,
}

/// Everything about an end.
pub(super) async fn of_end(planes: &Planes, end: &End) -> Held {
    let said = said_by_agent(planes, end).await;
    let kernel = match planes.local() {
        Some(mesh) => said_by_kernel(mesh, end).await,
        None => None,
    };
    let mut findings = vec![redirection(end, said.as_deref(), kernel.as_deref())];
    let plane = match said.or(kernel).as_deref() {
        Some("node") => planes.on_node(Role::NodeProxy, &end.node).await.ok(),
        Some("sidecar") => sidecar(planes, end).await,
        _ => {
            return Held {
                findings,
                plane: None,
                meshed: false,
            };
        }
    };
    findings.extend(of_plane(planes, end, plane.as_ref()).await);
    let answers = findings
        .iter()
        .all(|finding| finding.well || finding.layer != Layer::Plane);
    Held {
        findings,
        plane: plane.filter(|_| answers),
        meshed: true,
    }
}

async fn sidecar(planes: &Planes, end: &End) -> Option<Plane> {
    let all = planes.all().await.ok()?;
    all.into_iter()
        .find(|plane| plane.role == Role::Sidecar && plane.of == end.name)
}

/// The plane that the agent has settled a pod on.
pub(super) async fn said_by_agent(planes: &Planes, end: &End) -> Option<String> {
    let agent = planes.on_node(Role::Agent, &end.node).await.ok()?;
    let pods = list(&agent.ask(planes, "status").await.ok()?, "pods");
    let pod = pods.iter().find(|pod| text(pod, "uid") == end.uid)?;
    Some(text(pod, "plane").to_owned()).filter(|plane| !plane.is_empty())
}

/// The plane that the kernel redirects a pod to.
async fn said_by_kernel(mesh: &Mesh, end: &End) -> Option<String> {
    let pod = end.name.strip_prefix(&end.namespace)?.strip_prefix('/')?;
    let path = Path::new(NETNS_ROOT).join(mesh.pod_netns(&end.namespace, pod));
    let namespace = Namespace::open(&path).ok()?;
    let plane = kernel::inspect(&namespace).await.ok()?.plane;
    Some(
        match plane {
            PlaneKind::Node => "node",
            PlaneKind::Sidecar => "sidecar",
            PlaneKind::None => "none",
            PlaneKind::Unspecified => "a mixture of rules",
        }
        .to_owned(),
    )
}

fn redirection(end: &End, agent: Option<&str>, kernel: Option<&str>) -> Finding {
    let (well, detail) = match (agent, kernel) {
        (Some(agent), Some(kernel)) if agent != kernel => (
            false,
            format!("the agent redirects it to {agent}, but in the kernel it is {kernel}"),
        ),
        (Some(agent), _) => (true, format!("redirected to {agent}")),
        (None, Some(kernel)) => (
            true,
            format!(
                "redirected to {kernel}; the agent of {} does not know it",
                end.node
            ),
        ),
        (None, None) => (
            false,
            format!("neither the agent of {} nor the kernel says", end.node),
        ),
    };
    finding(Layer::Redirection, end, well, detail)
}

async fn of_plane(planes: &Planes, end: &End, plane: Option<&Plane>) -> Vec<Finding> {
    let Some(plane) = plane else {
        return vec![finding(Layer::Plane, end, false, "its plane does not run")];
    };
    let status = match plane.ask(planes, "status").await {
        Ok(status) => status,
        Err(error) => return vec![finding(Layer::Plane, end, false, causes(&error))],
    };
    let mut findings = vec![running(end, plane, &status)];
    let workload = workload(planes, end, plane).await;
    if workload.is_null() {
        findings.push(finding(
            Layer::Plane,
            end,
            false,
            "its plane does not know its workload yet",
        ));
        return findings;
    }
    findings.extend(certificate(planes, end, plane, text(&workload, "identity")).await);
    findings
}

fn running(end: &End, plane: &Plane, status: &Value) -> Finding {
    let mut awaited = list(status, "awaiting");
    awaited.extend(list(status, "pending"));
    let workers = list(status, "workers");
    let down: Vec<&Value> = workers
        .iter()
        .filter(|worker| worker.get("ready") == Some(&Value::Bool(false)))
        .collect();
    let who = format!("{} {}", plane.role.name(), plane.of);
    if !awaited.is_empty() {
        let awaited: Vec<&str> = awaited.iter().filter_map(Value::as_str).collect();
        return finding(
            Layer::Plane,
            end,
            false,
            format!("{who} waits for {}", awaited.join(", ")),
        );
    }
    if let Some(worker) = down.first() {
        return finding(
            Layer::Plane,
            end,
            false,
            format!("{who}: worker {} is not ready", text(worker, "scope")),
        );
    }
    finding(Layer::Plane, end, true, format!("{who} runs"))
}

async fn workload(planes: &Planes, end: &End, plane: &Plane) -> Value {
    let answer = plane.ask(planes, "workloads").await.unwrap_or_default();
    list(&answer, "workloads")
        .into_iter()
        .find(|one| text(one, "uid") == end.workload)
        .unwrap_or_default()
}

async fn certificate(planes: &Planes, end: &End, plane: &Plane, identity: &str) -> Option<Finding> {
    let answer = plane.ask(planes, "certificates").await.ok()?;
    let held = list(&answer, "certificates")
        .into_iter()
        .find(|one| text(one, "identity") == identity);
    let Some(held) = held else {
        return Some(finding(
            Layer::Certificate,
            end,
            true,
            format!("{identity}: none fetched yet"),
        ));
    };
    let state = text(&held, "state");
    let detail = format!("{identity}: {state} {}", text(&held, "failure"));
    Some(finding(Layer::Certificate, end, state == "valid", detail.trim()))
}

/// Whether there is anybody to reach.
pub(super) fn of_target(target: &Target) -> Finding {
    let ready = target.behind.len();
    let (well, detail) = match (target.selected, target.address) {
        (Some(0), _) => (false, "selects no pod that runs".into()),
        (Some(all), _) if ready == 0 => (false, format!("none of the {all} pods that it selects is ready")),
        (_, None) => (false, "has no address".into()),
        (Some(all), Some(address)) => (true, format!("{address}, {ready} of {all} pods ready")),
        (None, Some(address)) => (true, address.to_string()),
    };
    let namesake = target.namesake.as_ref();
    let namesake = namesake.map_or_else(String::new, |other| {
        format!("; not {other}, which has the same name")
    });
    Finding {
        layer: Layer::Endpoint,
        of: target.name.clone(),
        well,
        detail: detail + &namesake,
    }
}
