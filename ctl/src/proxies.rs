//! `proxy-status`: what each plane has acknowledged of what the control plane serves, how far it is behind and
//! since when. It shows what the replicas of the control plane say, all of them: a plane is a client of one.

mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trefoil_api::names::MESH_NAMESPACE;
use trefoil_local::causes::causes;

use crate::config::text;
use crate::output::Format;
use crate::planes::{Plane, Planes, Role};

/// A plane may lack a change for so long before that is worth a word: a slow link, a busy node.
const BEHIND: u64 = 10;

/// What is known of the planes.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ProxyStatus {
    replicas: Vec<Replica>,
    proxies: Vec<Proxy>,
    /// Planes that run and are no client of any replica that answers: they serve with what they last knew.
    away: Vec<Away>,
}

/// One control plane.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Replica {
    of: String,
    version: String,
    clients: usize,
    /// Why it does not answer.
    failure: Option<String>,
}

/// A plane, as the replica that it is a client of sees it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Proxy {
    /// NAMESPACE/POD, or what it calls itself.
    proxy: String,
    role: &'static str,
    node: Option<String>,
    version: String,
    control_plane: String,
    connected_seconds: u64,
    kinds: Vec<Kind>,
}

/// What a plane holds of a kind of resources.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Kind {
    kind: String,
    standing: Standing,
    /// Resources that it holds or is being sent.
    held: u64,
    /// Resources that there are; a plane that asks for single ones holds fewer.
    served: u64,
    /// Names that are still to be sent.
    pending: u64,
    acknowledged_seconds: Option<u64>,
    behind_seconds: Option<u64>,
    refusal: Option<String>,
}

/// How a plane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    /// It has acknowledged all that it is to have.
    Current,
    /// It has not yet.
    Behind,
    /// It refused something.
    Refused,
}

/// A plane without a control plane.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Away {
    proxy: String,
    role: &'static str,
    node: Option<String>,
}

/// What one replica says of its clients.
#[derive(Debug, Deserialize)]
struct Connections {
    clients: Vec<Client>,
}

#[derive(Debug, Deserialize)]
struct Client {
    client: String,
    #[serde(default)]
    role: String,
    pod: Option<String>,
    node: Option<String>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    connected_seconds: u64,
    types: Vec<OfType>,
}

#[derive(Debug, Deserialize)]
struct OfType {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    served: u64,
    held: u64,
    pending: u64,
    acknowledged_seconds: Option<u64>,
    behind_seconds: Option<u64>,
    refusal: Option<String>,
}

/// What a replica answered.
struct Answer {
    of: String,
    said: anyhow::Result<(String, Connections)>,
}

/// `proxy-status`: of one plane if it is named. Whether all planes have all they should.
pub(crate) async fn run(planes: &Planes, only: Option<&str>, format: Format) -> anyhow::Result<bool> {
    let mut status = gather(planes).await?;
    if let Some(only) = only {
        status.proxies.retain(|proxy| proxy.proxy == only);
        status.away.retain(|away| away.proxy == only);
        anyhow::ensure!(
            !(status.proxies.is_empty() && status.away.is_empty()),
            "{only} is no plane: name a node proxy, a waypoint's pod or a pod with a sidecar as NAMESPACE/POD"
        );
    }
    format.print(&status, || shown::render(&status, only.is_some()))?;
    Ok(status.well())
}

/// Asks every replica.
pub(crate) async fn gather(planes: &Planes) -> anyhow::Result<ProxyStatus> {
    let all = planes.all().await?;
    let replicas = all.iter().filter(|plane| plane.role == Role::ControlPlane);
    let answers = futures::future::join_all(replicas.map(|replica| ask(planes, replica))).await;
    Ok(ProxyStatus::of(answers, &all))
}

async fn ask(planes: &Planes, replica: &Plane) -> Answer {
    let said = async {
        let status: Value = replica.ask(planes, "status").await?;
        let connections = replica.question(planes, "GET", "connections").await?;
        anyhow::Ok((text(&status, "version").to_owned(), connections))
    };
    Answer {
        of: replica.of.clone(),
        said: said.await,
    }
}

/// NAMESPACE/POD of a plane.
fn full_name(plane: &Plane) -> String {
    match plane.of.contains('/') {
        true => plane.of.clone(),
        false => format!("{MESH_NAMESPACE}/{}", plane.of),
    }
}

impl ProxyStatus {
    /// What the answers come to, beside the planes that run.
    fn of(answers: Vec<Answer>, all: &[Plane]) -> Self {
        let mut status = Self::default();
        for Answer { of, said } in answers {
            let mut replica = Replica {
                of: of.clone(),
                ..Replica::default()
            };
            match said {
                Ok((version, connections)) => {
                    replica.version = version;
                    replica.clients = connections.clients.len();
                    let clients = connections.clients.into_iter();
                    status.proxies.extend(clients.map(|client| client.shown(&of)));
                }
                Err(error) => replica.failure = Some(causes(&error)),
            }
            status.replicas.push(replica);
        }
        status
            .proxies
            .sort_by(|a, b| (a.role, &a.proxy).cmp(&(b.role, &b.proxy)));
        let connected: BTreeSet<&str> = status.proxies.iter().map(|proxy| proxy.proxy.as_str()).collect();
        status.away = all
            .iter()
            .filter(|plane| matches!(plane.role, Role::NodeProxy | Role::Sidecar | Role::Waypoint))
            .filter(|plane| !connected.contains(full_name(plane).as_str()))
            .map(|plane| Away {
                proxy: full_name(plane),
                role: plane.role.name(),
                node: plane.node.clone(),
            })
            .collect();
        status
    }

    /// Every replica answers, and every plane has taken all it should, or is about to.
    fn well(&self) -> bool {
        let kinds = || self.proxies.iter().flat_map(|proxy| &proxy.kinds);
        self.replicas.iter().all(|replica| replica.failure.is_none())
            && self.away.is_empty()
            && kinds().all(|kind| kind.refusal.is_none() && kind.behind_seconds.unwrap_or(0) < BEHIND)
    }
}

impl Client {
    fn shown(self, control_plane: &str) -> Proxy {
        Proxy {
            proxy: self.pod.unwrap_or(self.client),
            role: role(&self.role),
            node: self.node,
            version: self.version,
            control_plane: control_plane.to_owned(),
            connected_seconds: self.connected_seconds,
            kinds: self.types.into_iter().map(OfType::shown).collect(),
        }
    }
}

impl OfType {
    fn shown(self) -> Kind {
        let standing = match (&self.refusal, self.behind_seconds) {
            (Some(_), _) => Standing::Refused,
            (None, Some(_)) => Standing::Behind,
            (None, None) => Standing::Current,
        };
        Kind {
            kind: self.kind,
            standing,
            held: self.held,
            served: self.served,
            pending: self.pending,
            acknowledged_seconds: self.acknowledged_seconds,
            behind_seconds: self.behind_seconds,
            refusal: self.refusal,
        }
    }
}

/// In our words what clients of such control planes call themselves.
fn role(said: &str) -> &'static str {
    match said {
        "ztunnel" => Role::NodeProxy.name(),
        "sidecar" => Role::Sidecar.name(),
        "waypoint" => Role::Waypoint.name(),
        _ => "other",
    }
}
