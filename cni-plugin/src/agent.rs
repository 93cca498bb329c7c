//! The node agent: watches the node's pods, decides their planes, keeps them there, feeds node proxies, keeps
//! their descriptors, and tells the control plane. Restarted at any moment it converges: what redirects a pod
//! is read from the kernel, where its network is from the state directory or its processes.

use std::io;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
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
mod requests;
mod shared;
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
    if let (Some(binaries), Some(configuration)) = (&options.cni_bin_dir, &options.cni_conf_dir) {
        conflist::install_binary(binaries)?;
        let entry = conflist::entry(options);
        tokio::spawn(conflist::keep(configuration.clone(), entry));
    }

    let (observations, learned) = mpsc::channel(BACKLOG);
    let decider = decider::Decider::restored(Arc::clone(&shared)).map_err(named(&options.state_dir))?;
    let (meshed, proxies) = (decider.meshed.subscribe(), decider.proxies.subscribe());
    let tasks = TaskTracker::new();
    let run = |task| {
        let ending = ending.clone();
        tasks.spawn(async move { ending.run_until_cancelled_owned(task).await });
    };
    run(boxed(decider.run(learned)));
    run(boxed(observe::namespaces(
        shared.client.clone(),
        observations.clone(),
    )));
    run(boxed(observe::mesh_config(
        shared.client.clone(),
        observations.clone(),
    )));
    run(boxed(observe::pods(
        shared.client.clone(),
        options.node.clone(),
        observations.clone(),
    )));
    run(boxed(decider::keep_host(
        Arc::clone(&shared),
        shared.host.clone(),
        meshed,
    )));
    let reporting = Arc::clone(&shared.reports).run(control_plane(options));
    run(boxed(reporting));
    run(boxed(log_end(
        "pods.sock",
        Arc::clone(&shared.feed).serve(sockets.pods),
    )));
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
    run(boxed(log_end("descriptors.sock", store)));
    run(boxed(serve_unix(
        sockets.plugin,
        requests::routes(Arc::clone(&shared), observations),
    )));
    let admin_routes = admin::routes(Arc::clone(&shared), level, ending.clone());
    run(boxed(serve_unix(sockets.admin, admin_routes)));
    let metrics_routes = metrics::routes(Arc::clone(&shared));
    run(boxed(async move {
        axum::serve(sockets.metrics, metrics_routes).await.ok();
    }));
    tracing::info!(node = %options.node, "agent runs");
    tasks.close();
    tasks.wait().await;
    // Redirection stays as it is: the pods go on, and a successor finds them as they are.
    tracing::info!("agent ends");
    Ok(())
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

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn boxed(task: impl Future<Output = ()> + Send + 'static) -> Task {
    Box::pin(task)
}

async fn log_end(socket: &'static str, serving: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(socket, %error, "no longer accepts");
    }
}

async fn serve_unix(listener: UnixListener, routes: axum::Router) {
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "a Unix socket no longer accepts");
    }
}

fn control_plane(options: &Options) -> ControlPlane {
    ControlPlane {
        address: options.control_plane.clone(),
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
