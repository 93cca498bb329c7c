//! The daemon of a mesh on this machine: the parent of its processes and the keeper of its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::mesh::{Mesh, Node};
use super::network::PodAddresses;
use super::objects::{self, TokenOwner};
use super::pod::MadePod;
use super::process::{ProcessStatus, Supervised};
use super::protocol::{LocalStatus, PodStatus};
use super::services::ServiceView;

mod bring_up;
mod serve;

pub use bring_up::run;
pub(crate) use serve::finish;

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes.
    pub nodes: u8,
    /// Lifetime of workloads' certificates, such as `30s`.
    pub certificate_lifetime: Option<String>,
    /// Isolation of workloads on a node.
    pub isolation: Option<String>,
}

/// The daemon's state.
pub(crate) struct Daemon {
    /// The mesh.
    pub(crate) mesh: Mesh,
    /// Its nodes.
    pub(crate) nodes: Vec<Node>,
    /// What the user chose.
    pub(crate) options: Options,
    /// The API server.
    pub(crate) client: Client,
    /// Wakes what follows from pods' files.
    pub(crate) changed: Arc<Notify>,
    /// The services in force.
    pub(crate) services: watch::Sender<Vec<ServiceView>>,
    /// Everything is to end.
    pub(crate) stop: CancellationToken,
    processes: Mutex<Vec<Supervised>>,
    pods: Mutex<BTreeMap<(String, String), PodEntry>>,
    sidecars: Mutex<BTreeMap<String, Supervised>>,
    used: Mutex<BTreeSet<(u8, u8)>>,
    last: Mutex<BTreeMap<u8, u8>>,
    tokens: Mutex<Vec<TokenFile>>,
}

/// A pod whose program runs or is about to.
#[derive(Clone, Debug)]
pub(crate) struct PodEntry {
    /// The pod.
    pub(crate) pod: MadePod,
    /// Its program's process id.
    pub(crate) pid: Option<u32>,
    /// What was run.
    pub(crate) command: Vec<String>,
    /// It is to end.
    pub(crate) stop: CancellationToken,
    /// It has ended and is removed.
    pub(crate) gone: CancellationToken,
}

/// A token in a file, which is kept fresh.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile {
    /// Whose.
    pub(crate) owner: TokenOwner,
    /// Where.
    pub(crate) path: PathBuf,
    /// Who may read it.
    pub(crate) user: u32,
    /// For whom.
    pub(crate) kind: TokenKind,
}

/// Whom a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// The control plane.
    ControlPlane,
    /// The API server.
    Api,
}

/// A lock whose holder never leaves its content half changed: a panic elsewhere does not spoil it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    fn new(mesh: Mesh, options: Options, client: Client) -> Self {
        Self {
            mesh,
            nodes: (1..=options.nodes).map(Node).collect(),
            options,
            client,
            changed: Arc::new(Notify::new()),
            services: watch::Sender::new(Vec::new()),
            stop: CancellationToken::new(),
            processes: Mutex::default(),
            pods: Mutex::default(),
            sidecars: Mutex::default(),
            used: Mutex::default(),
            last: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// Addresses on the node asked for, else on the one with the fewest pods.
    pub(crate) fn allocate(&self, node: Option<&str>) -> anyhow::Result<PodAddresses> {
        let mut used = locked(&self.used);
        let node = match node {
            Some(name) => Node::parse(name)
                .filter(|node| self.nodes.contains(node))
                .with_context(|| {
                    let names: Vec<_> = self.nodes.iter().map(|node| node.name()).collect();
                    format!("no node {name:?} here: there are {}", names.join(", "))
                })?,
            None => {
                let pods = |node: &&Node| used.iter().filter(|(of, _)| *of == node.0).count();
                *self
                    .nodes
                    .iter()
                    .min_by_key(pods)
                    .context("this mesh has no nodes")?
            }
        };
        // An address that was just given back is the last to be given again: peers forget it meanwhile.
        let mut last = locked(&self.last);
        let from = last.get(&node.0).map_or(2, |index| index + 1);
        let free = (from..=250)
            .chain(2..from)
            .find(|index| !used.contains(&(node.0, *index)));
        let index = free.with_context(|| format!("node {} has no address left", node.name()))?;
        used.insert((node.0, index));
        last.insert(node.0, index);
        Ok(PodAddresses { node: node.0, index })
    }

    /// Gives addresses back.
    pub(crate) fn release(&self, addresses: PodAddresses) {
        locked(&self.used).remove(&(addresses.node, addresses.index));
    }

    /// Writes a token and keeps it fresh.
    pub(crate) async fn keep_token(&self, file: TokenFile) -> anyhow::Result<()> {
        self.write_token(&file).await?;
        locked(&self.tokens).push(file);
        Ok(())
    }

    async fn write_token(&self, file: &TokenFile) -> anyhow::Result<()> {
        match file.kind {
            TokenKind::ControlPlane => {
                objects::write_token(&self.client, &file.owner, &file.path, file.user).await
            }
            TokenKind::Api => objects::write_api_token(&self.client, &file.owner, &file.path).await,
        }
    }

    /// Stops keeping the tokens of a pod fresh.
    pub(crate) fn forget_tokens(&self, uid: &str) {
        locked(&self.tokens).retain(|file| file.owner.uid != uid);
    }

    /// Holds a pod's sidecar.
    pub(crate) fn hold_sidecar(&self, pod: &MadePod, process: Supervised) {
        locked(&self.sidecars).insert(pod.uid.clone(), process);
    }

    /// A pod's sidecar, no longer held.
    pub(crate) fn take_sidecar(&self, pod: &MadePod) -> Option<Supervised> {
        locked(&self.sidecars).remove(&pod.uid)
    }

    /// A pod that runs.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<PodEntry> {
        locked(&self.pods)
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Every pod that runs.
    pub(crate) fn pods(&self) -> Vec<PodEntry> {
        locked(&self.pods).values().cloned().collect()
    }

    /// Holds a pod.
    pub(crate) fn hold_pod(&self, entry: PodEntry) {
        locked(&self.pods).insert((entry.pod.namespace.clone(), entry.pod.name.clone()), entry);
    }

    /// The process id of a pod's program.
    pub(crate) fn set_pid(&self, pod: &MadePod, pid: u32) {
        if let Some(entry) = locked(&self.pods).get_mut(&(pod.namespace.clone(), pod.name.clone())) {
            entry.pid = Some(pid);
        }
    }

    /// Forgets a pod.
    pub(crate) fn forget_pod(&self, pod: &MadePod) {
        locked(&self.pods).remove(&(pod.namespace.clone(), pod.name.clone()));
    }

    /// What runs.
    pub(crate) fn status(&self) -> LocalStatus {
        let sidecars = locked(&self.sidecars);
        let pods = locked(&self.pods)
            .values()
            .map(|entry| PodStatus {
                namespace: entry.pod.namespace.clone(),
                name: entry.pod.name.clone(),
                node: entry.pod.node().name(),
                addresses: vec![
                    entry.pod.addresses.v4().to_string(),
                    entry.pod.addresses.v6().to_string(),
                ],
                sidecar: sidecars.get(&entry.pod.uid).map(Supervised::status),
                pid: entry.pid,
                command: entry.command.clone(),
            })
            .collect();
        let processes: Vec<ProcessStatus> = locked(&self.processes).iter().map(Supervised::status).collect();
        LocalStatus {
            nodes: self.nodes.iter().map(|node| node.name()).collect(),
            processes,
            pods,
        }
    }
}
