//! The node agent: watches the node's pods, decides their planes, keeps them there, feeds node proxies, keeps
//! their descriptors, and tells the control plane. Restarted at any moment it converges: what redirects a pod
//! is read from the kernel, where its network is from the state directory or its processes.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use trefoil_packets::{Credentials, PacketListener};

use crate::attachment::StateDirectory;
use crate::log::Level;
use crate::namespace::{Namespace, descends_from, runs_in_pod};
use crate::report::ControlPlane;

mod admin;
pub mod conflist;
mod decider;
mod metrics;
mod observe;
mod options;
mod pod;
mod removal;
mod requests;
mod shared;
mod taint;
#[cfg(test)]
mod tests;
mod world;

pub use options::Options;
use shared::Shared;

/// Observations that may wait.
const BACKLOG: usize = 1024;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or socket.
    #[error("{what}: {error}")]
    Io {
        /// What it is for.
        what: String,
        /// What is wrong.
        error: io::Error,
    },
    /// No way to the API server is configured.
    #[error("API server: {0}")]
    Kubeconfig(String),
    /// The API client cannot be made.
    #[error("API server: {0}")]
    Client(#[from] kube::Error),
    /// The plugin could not be installed.
    #[error(transparent)]
    Install(#[from] conflist::InstallError),
    /// A part of the agent ended by itself: whoever started the agent is to start it again, whole.
    #[error("{0} ended, though nobody asked for it")]
    Ended(&'static str),
}

/// Runs the agent until `ending` is cancelled.
pub async fn run(options: Options, level: Level, ending: CancellationToken) -> Result<(), AgentError> {
    raise_descriptor_limit();
    let state = StateDirectory::open(&options.state_dir).map_err(named(&options.state_dir))?;
    let host = match &options.host_netns {
        Some(path) => Namespace::open(path).map_err(named(path))?,
        None => Namespace::current().map_err(named(Path::new("network namespace")))?,
    };
    let client = client(&options).await?;
    let shared = Arc::new(Shared::new(options, client, host, state));
    let options = &shared.options;
    let sockets = Sockets::open(options).await?;
    let (observations, learned) = mpsc::channel(BACKLOG);
    let decider = decider::Decider::restored(Arc::clone(&shared)).map_err(named(&options.state_dir))?;
    let (meshed, proxies) = (decider.meshed.subscribe(), decider.proxies.subscribe());
    let removal = decider.removal.subscribe();
    let mut parts = Parts::new(ending.clone());
    if let (Some(binaries), Some(folder)) = (&options.cni_bin_dir, &options.cni_conf_dir) {
        if removal.borrow().is_none() {
            conflist::install_binary(binaries)?;
        }
        let entry = conflist::entry(options);
        let kept = conflist::keep(binaries.clone(), folder.clone(), entry, removal.clone());
        parts.run("what keeps the CNI configuration", kept);
    }
    parts.run(
        "what removes the mesh",
        removal::run(Arc::clone(&shared), removal.clone()),
    );
    // Done once, and no part that may not end.
    tokio::spawn(
        ending
            .clone()
            .run_until_cancelled_owned(taint::lift(Arc::clone(&shared))),
    );
    parts.run("what decides", decider.run(learned));
    let client = || shared.client.clone();
    let namespaces = observe::namespaces(client(), observations.clone());
    parts.run("the watch of namespaces", namespaces);
    let mesh_config = observe::mesh_config(client(), observations.clone());
    parts.run("the watch of the mesh configuration", mesh_config);
    let pods = observe::pods(client(), options.node.clone(), observations.clone());
    parts.run("the watch of pods", pods);
    let host = decider::keep_host(Arc::clone(&shared), shared.host.clone(), meshed, removal);
    parts.run("what keeps the host's rules", host);
    let (reporting, replicas) = (Arc::clone(&shared), control_plane(options));
    parts.run("what reports to the control plane", async move {
        // The first report is of all pods: before they are known, it would say that they have left the mesh.
        reporting.feed.opened().await;
        Arc::clone(&reporting.reports).run(replicas).await;
    });
    parts.run("pods.sock", Arc::clone(&shared.feed).serve(sockets.pods));
    let known = Arc::clone(&shared);
    // Init starts so much that being started by it says nothing.
    let parent = options
        .node_proxy_parent
        .or_else(|| Some(parent_id().cast_signed()).filter(|&parent| parent > 1));
    let allowed = move |peer: Credentials| {
        let uids = proxies.borrow().clone();
        is_node_proxy(&known.options, parent, peer, uids.iter().map(String::as_str))
    };
    let store = Arc::clone(&shared.store).serve(sockets.descriptors, allowed);
    parts.run("descriptors.sock", store);
    let plugin_routes = requests::routes(Arc::clone(&shared), observations);
    parts.run("cni.sock", serve_unix(sockets.plugin, plugin_routes));
    let admin_routes = admin::routes(Arc::clone(&shared), level, ending.clone());
    parts.run("admin.sock", serve_unix(sockets.admin, admin_routes));
    let metrics_routes = metrics::routes(Arc::clone(&shared));
    parts.run("the metrics listener", async move {
        axum::serve(sockets.metrics, metrics_routes).await.ok();
    });
    tracing::info!(node = %options.node, "agent runs");
    let ended = parts.until_ended().await;
    // Redirection stays as it is: the pods go on, and a successor finds them as they are.
    tracing::info!("agent ends");
    ended
}

/// What the agent does at the same time, for as long as it lives. One part that ends, or panics, would leave an
/// agent that looks alive and is not.
struct Parts {
    ending: CancellationToken,
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    fn new(ending: CancellationToken) -> Self {
        Self {
            ending,
            tasks: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    fn run(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let ending = self.ending.clone();
        let task = async move { ending.run_until_cancelled_owned(part).await.unwrap_or_default() };
        self.names.insert(self.tasks.spawn(task).id(), name);
    }

    /// Waits until all have ended: because they are to, or because one did by itself.
    async fn until_ended(mut self) -> Result<(), AgentError> {
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let id = match &ended {
                Ok((id, ())) => *id,
                Err(error) => error.id(),
            };
            if !self.ending.is_cancelled() {
                result = Err(AgentError::Ended(self.names.get(&id).unwrap_or(&"a part")));
                self.ending.cancel();
            }
        }
        result
    }
}

/// Everything that the agent listens on.
struct Sockets {
    pods: PacketListener,
    descriptors: PacketListener,
    plugin: UnixListener,
    admin: UnixListener,
    metrics: TcpListener,
}

impl Sockets {
    async fn open(options: &Options) -> Result<Self, AgentError> {
        std::fs::create_dir_all(&options.run_dir).map_err(named(&options.run_dir))?;
        let packets = |name: &str| {
            let path = options.run_dir.join(name);
            PacketListener::bind(&path).map_err(named(&path))
        };
        let unix = |path: &Path| requests::listen(path).map_err(named(path));
        let metrics = TcpListener::bind(options.metrics_listen).await;
        Ok(Self {
            pods: packets("pods.sock")?,
            descriptors: packets("descriptors.sock")?,
            plugin: unix(&options.run_dir.join("cni.sock"))?,
            admin: unix(&options.admin_socket())?,
            metrics: metrics.map_err(named(Path::new("metrics listener")))?,
        })
    }
}

async fn serve_unix(listener: UnixListener, routes: axum::Router) {
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "a Unix socket no longer accepts");
    }
}

fn control_plane(options: &Options) -> ControlPlane {
    ControlPlane {
        addresses: options.control_plane.clone(),
        name: options.control_plane_name.clone(),
        token: options.token.clone(),
        root: options.root_cert.clone(),
    }
}

async fn client(options: &Options) -> Result<kube::Client, AgentError> {
    let unusable = |error: &dyn std::fmt::Display| AgentError::Kubeconfig(error.to_string());
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            let options = kube::config::KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|error| unusable(&error))?
        }
        None => kube::Config::incluster().map_err(|error| unusable(&error))?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(kube::Client::try_from(config)?)
}

/// Whether a peer is the node proxy: a process of one of its pods, or root's, started by the very process that
/// starts the parts of a node without Kubernetes.
fn is_node_proxy<'a>(
    options: &Options,
    parent: Option<i32>,
    peer: Credentials,
    mut pods: impl Iterator<Item = &'a str>,
) -> bool {
    let started_by = |parent| descends_from(&options.proc_root, peer.process, parent);
    if peer.user == 0 && parent.is_some_and(started_by) {
        return true;
    }
    if let Some(text) = &options.node_proxy_cgroup {
        let path = options.proc_root.join(peer.process.to_string()).join("cgroup");
        return std::fs::read_to_string(path).is_ok_and(|groups| groups.contains(text.as_str()));
    }
    pods.any(|uid| runs_in_pod(&options.proc_root, peer.process, uid))
}

/// The agent holds a few descriptors for each pod.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn named(what: &Path) -> impl FnOnce(io::Error) -> AgentError + use<> {
    let what = what.display().to_string();
    move |error| AgentError::Io { what, error }
}
