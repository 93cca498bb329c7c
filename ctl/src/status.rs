//! `status`: the planes, what each serves, its certificates, how stale it may be, and what is unhealthy.
//! It shows what the processes say of themselves.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use trefoil_local::causes::causes;

use crate::config::{list, text};
use crate::output::{Format, Table, Tone, toned};
use crate::planes::{Plane, Planes, Role};

/// The state of a mesh.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    planes: Vec<PlaneStatus>,
    /// What is not as it should be.
    pub(crate) unhealthy: Vec<String>,
    /// Of that, what the control plane says about policies: it is in their own status too.
    #[serde(skip)]
    pub(crate) of_policies: Vec<String>,
    /// What agents say about pods that are not where their labels ask.
    pub(crate) remarks: Vec<Remark>,
    /// Ports that declare nothing, at which planes that read HTTP wait for clients in vain.
    pub(crate) undeclared: BTreeSet<String>,
}

/// What an agent says about a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Remark {
    /// NAMESPACE/POD.
    pub(crate) pod: String,
    /// What.
    pub(crate) remark: String,
}

/// What one process says of itself.
#[derive(Debug, Serialize)]
struct PlaneStatus {
    role: &'static str,
    of: String,
    node: Option<String>,
    version: Option<String>,
    ready: bool,
    pods: Option<u64>,
    certificates: Option<Certificates>,
    connected: Option<bool>,
    /// For how long it has been connected to the control plane, or away from it: what it serves is as old as
    /// it has been away.
    connected_or_away_seconds: Option<u64>,
    restarts: u64,
}

/// What one process says, taken apart.
#[derive(Default)]
struct Said {
    complaints: Vec<String>,
    of_policies: Vec<String>,
    remarks: Vec<Remark>,
    undeclared: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Certificates {
    valid: usize,
    not_valid: Vec<String>,
    next_expiry_seconds: Option<u64>,
}

impl Status {
    /// The versions of control planes, and of the others: each with whose it is.
    pub(crate) fn versions(&self) -> [Vec<(String, String)>; 2] {
        let of_role = |control_plane: bool| {
            let planes = self.planes.iter();
            let planes = planes.filter(|plane| (plane.role == Role::ControlPlane.name()) == control_plane);
            planes
                .filter_map(|plane| Some((format!("{} {}", plane.role, plane.of), plane.version.clone()?)))
                .collect()
        };
        [of_role(true), of_role(false)]
    }
}

/// Asks every process.
pub(crate) async fn gather(planes: &Planes) -> anyhow::Result<Status> {
    let all = planes.all().await?;
    let answers = futures::future::join_all(all.iter().map(|plane| of_plane(planes, plane))).await;
    let mut status = Status {
        planes: Vec::new(),
        unhealthy: Vec::new(),
        of_policies: Vec::new(),
        remarks: Vec::new(),
        undeclared: BTreeSet::new(),
    };
    for (plane, said) in answers {
        status.planes.push(plane);
        status.unhealthy.extend(said.complaints);
        status.unhealthy.extend(said.of_policies.iter().cloned());
        status.of_policies.extend(said.of_policies);
        status.remarks.extend(said.remarks);
        status.undeclared.extend(said.undeclared);
    }
    Ok(status)
}

async fn of_plane(planes: &Planes, plane: &Plane) -> (PlaneStatus, Said) {
    let who = format!("{} {}", plane.role.name(), plane.of);
    let mut shown = PlaneStatus {
        role: plane.role.name(),
        of: plane.of.clone(),
        node: plane.node.clone(),
        version: None,
        ready: false,
        pods: None,
        certificates: None,
        connected: None,
        connected_or_away_seconds: None,
        restarts: 0,
    };
    let said = match plane.ask(planes, "status").await {
        Ok(said) => said,
        Err(error) => {
            let complaints = vec![causes(&error)];
            return (
                shown,
                Said {
                    complaints,
                    ..Said::default()
                },
            );
        }
    };
    let mut complaints = complaints(plane.role, &said);
    let of_policies = match plane.role {
        Role::ControlPlane => of_policies(&said),
        _ => Vec::new(),
    };
    shown.ready = complaints.is_empty() && of_policies.is_empty();
    shown.version = said.get("version").and_then(Value::as_str).map(str::to_owned);
    shown.connected_or_away_seconds = said
        .pointer("/controlPlane/seconds")
        .or(said.get("controlPlaneSeconds"))
        .and_then(Value::as_u64);
    shown.connected = said
        .pointer("/controlPlane/connected")
        .or(said.get("controlPlaneConnected"))
        .and_then(Value::as_bool);
    shown.pods = pods(plane.role, &said);
    let workers = said.get("workers").and_then(Value::as_array);
    shown.restarts = workers
        .into_iter()
        .flatten()
        .filter_map(|worker| worker.get("restarts")?.as_u64())
        .sum();
    if matches!(plane.role, Role::NodeProxy | Role::Sidecar | Role::Waypoint)
        && let Ok(answer) = plane.ask(planes, "certificates").await
    {
        let certificates = certificates(&answer);
        complaints.extend(
            certificates
                .not_valid
                .iter()
                .map(|one| format!("certificate {one}")),
        );
        shown.certificates = Some(certificates);
    }
    let named = |complaints: Vec<String>| -> Vec<String> {
        let named = complaints.iter().map(|complaint| format!("{who}: {complaint}"));
        named.collect()
    };
    let said = Said {
        complaints: named(complaints),
        of_policies: named(of_policies),
        remarks: remarks(&said),
        undeclared: undeclared(&said),
    };
    (shown, said)
}

/// What an agent says about pods that are not where their labels ask; others have no such pods.
fn remarks(said: &Value) -> Vec<Remark> {
    let pods = list(said, "pods");
    let remarked = pods.iter().filter(|pod| !text(pod, "remark").is_empty());
    remarked
        .map(|pod| Remark {
            pod: format!("{}/{}", text(pod, "namespace"), text(pod, "name")),
            remark: text(pod, "remark").into(),
        })
        .collect()
}

/// Ports at which a plane that reads HTTP has waited for clients in vain; others wait for nobody.
fn undeclared(said: &Value) -> Vec<String> {
    let ports = list(said, "undeclared");
    ports
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// What it means that a port is one of those.
pub(crate) fn undeclared_shown(port: &str) -> String {
    format!(
        "port {port} declares nothing and its clients wait for the server to speak: each connection waits 50 to 100 ms for nothing"
    )
}

/// How many pods a process serves.
fn pods(role: Role, said: &Value) -> Option<u64> {
    match role {
        Role::ControlPlane | Role::Waypoint => None,
        Role::Agent => {
            let redirected =
                |pod: &&Value| matches!(pod.get("plane").and_then(Value::as_str), Some("node" | "sidecar"));
            Some(said.get("pods")?.as_array()?.iter().filter(redirected).count() as u64)
        }
        Role::NodeProxy => said.get("pods")?.as_u64(),
        Role::Sidecar => Some(1),
    }
}

/// What a process says is wrong.
fn complaints(role: Role, said: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let texts = |path: &str| {
        let list = said
            .pointer(path)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        list.iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), Into::into))
            .collect::<Vec<String>>()
    };
    for path in ["/awaiting", "/pending"] {
        complaints.extend(texts(path).into_iter().map(|what| format!("waits for {what}")));
    }
    complaints.extend(
        texts("/controlPlane/refused")
            .into_iter()
            .map(|what| format!("refused {what}")),
    );
    complaints.extend(
        texts("/refusals")
            .into_iter()
            .map(|what| format!("a client refused {what}")),
    );
    for (path, complaint) in [
        ("/ready", "not ready"),
        ("/nodeProxyConnected", "no node proxy is connected"),
        ("/controlPlaneConnected", "not connected to the control plane"),
        (
            "/controlPlane/connected",
            "not connected to the control plane: serves with what it last knew",
        ),
    ] {
        if said.pointer(path) == Some(&Value::Bool(false)) {
            complaints.push(complaint.into());
        }
    }
    if role == Role::ControlPlane {
        complaints.extend(of_control_plane(said));
    }
    let pods = said.get("pods").and_then(Value::as_array);
    for pod in pods
        .into_iter()
        .flatten()
        .filter(|pod| pod.get("settled") == Some(&Value::Bool(false)))
    {
        let text = |key: &str| {
            pod.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        complaints.push(format!(
            "pod {}/{} is not on its plane: {}",
            text("namespace"),
            text("name"),
            text("remark")
        ));
    }
    complaints
}

fn certificates(answer: &Value) -> Certificates {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut summary = Certificates::default();
    for one in answer
        .get("certificates")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("state") == "valid" {
            summary.valid += 1;
            let left = one
                .get("not_after")
                .and_then(Value::as_u64)
                .map(|end| end.saturating_sub(now));
            summary.next_expiry_seconds = [summary.next_expiry_seconds, left].into_iter().flatten().min();
        } else {
            let why = format!("{}: {} {}", text("identity"), text("state"), text("failure"));
            summary.not_valid.push(why.trim().into());
        }
    }
    summary
}

/// Prints it; whether all is well.
pub(crate) fn print(status: &Status, format: Format) -> anyhow::Result<bool> {
    format.print(status, || render(status))?;
    Ok(status.unhealthy.is_empty())
}

/// The text.
pub(crate) fn render(status: &Status) -> String {
    let mut table = Table::new(&[
        "PLANE",
        "OF",
        "NODE",
        "STATE",
        "PODS",
        "CERTIFICATES",
        "CONTROL PLANE",
        "RESTARTS",
    ]);
    let dash = || "-".to_owned();
    for plane in &status.planes {
        let state = if plane.ready {
            toned(Tone::Good, "ready")
        } else {
            toned(Tone::Bad, "unhealthy")
        };
        let certificates = plane.certificates.as_ref().map_or_else(dash, |certificates| {
            let expiry = certificates
                .next_expiry_seconds
                .map_or_else(String::new, |left| format!(", next ends in {}", span(left)));
            format!("{} valid{expiry}", certificates.valid)
        });
        let since = plane
            .connected_or_away_seconds
            .map_or_else(String::new, |seconds| format!(" for {}", span(seconds)));
        let connected = plane.connected.map_or_else(dash, |connected| {
            if connected {
                format!("connected{since}")
            } else {
                toned(Tone::Odd, &format!("away{since}"))
            }
        });
        table.row([
            plane.role.into(),
            plane.of.clone(),
            plane.node.clone().unwrap_or_else(dash),
            state,
            plane.pods.map_or_else(dash, |pods| pods.to_string()),
            certificates,
            connected,
            plane.restarts.to_string(),
        ]);
    }
    let mut text = table.render();
    if status.unhealthy.is_empty() {
        text.push_str(&format!("\n{}\n", toned(Tone::Good, "nothing is unhealthy")));
    }
    for complaint in &status.unhealthy {
        text.push_str(&format!("\n{} {complaint}", toned(Tone::Bad, "unhealthy:")));
    }
    for Remark { pod, remark } in &status.remarks {
        text.push_str(&format!("\n{} pod {pod}: {remark}", toned(Tone::Odd, "remark:")));
    }
    for port in &status.undeclared {
        text.push_str(&format!(
            "\n{} {}",
            toned(Tone::Odd, "remark:"),
            undeclared_shown(port)
        ));
    }
    text
}

/// A span of time in its largest unit.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// What the control plane finds wrong with itself, and what planes refused.
fn of_control_plane(said: &Value) -> Vec<String> {
    let problems = list(said, "problems");
    let problems = problems.iter().filter_map(Value::as_str).map(str::to_owned);
    let refusals = list(said, "refusals");
    let refusals = refusals.iter().map(|one| {
        format!(
            "{} refused what it was sent: {}",
            text(one, "client"),
            text(one, "refusal")
        )
    });
    problems.chain(refusals).collect()
}

/// What the control plane finds wrong with policies.
fn of_policies(said: &Value) -> Vec<String> {
    let policies = list(said, "malformed");
    let policies = policies.iter().map(|one| {
        let (policy, reason) = (text(one, "policy"), text(one, "reason"));
        format!("policy {policy}: {reason}: {}", text(one, "message"))
    });
    policies.collect()
}
