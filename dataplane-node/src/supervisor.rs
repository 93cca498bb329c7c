//! The supervisor: owns the pods' namespaces, the control plane's stream and the workers. It moves no
//! application bytes and keeps no keys of its own.

mod admin;
mod counters;
mod feed;
mod fleet;
mod in_pod;
mod keeper;
mod link;
mod merge;
mod namespace;
mod node;
mod pod;
mod process;
mod questions;
mod resources;
mod scope;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::drain::Drained;
use trefoil_dataplane_process::Readiness;
use trefoil_dataplane_process::admin::LogLevel;
use trefoil_dataplane_process::remember::Remember;
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::certificates::{Authority, AuthorityScope};
use trefoil_dataplane_state::discovery::{self, ControlPlane, Discovery};
use trefoil_dataplane_state::state::Isolation;

use self::counters::Counters;
use self::feed::Feed;
use self::fleet::Fleet;
use self::keeper::Keeper;
use self::link::Grants;
use self::namespace::Entrance;
use self::node::{Node, NodeParts};
use self::resources::Resources;
use crate::flags::{IsolationFlag, RunFlags};

/// Seconds that certificates are asked for; the authority may give less.
const LIFETIME: i64 = 24 * 3600;
/// How often the last-known-good state is written at most.
const REMEMBER: Duration = Duration::from_secs(1);
/// What workers have beyond the deadline to say that they ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the supervisor ended.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Something that it cannot be without.
    #[error("{what}: {source}")]
    Start {
        /// What.
        what: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// Established connections were cut.
    #[error("the drain deadline passed with {0} workers still at work")]
    Forced(usize),
    /// Told twice to end.
    #[error("told to end at once")]
    Aborted,
}

/// What the admin interface shows.
#[derive(Clone)]
struct Shown {
    flags: Arc<RunFlags>,
    store: Store,
    resources: Arc<Resources>,
    node: Arc<Node>,
    fleet: Arc<Fleet>,
    readiness: Readiness,
    discovery: tokio::sync::watch::Receiver<discovery::Status>,
    drain: Drain,
    level: LogLevel,
    registry: Arc<Registry>,
}

/// Runs until told to end, then drains. To be run on the process's main thread.
pub async fn run(flags: RunFlags, level: LogLevel) -> Result<(), SupervisorError> {
    crate::inherited::close_on_exec().map_err(start("descriptors that were inherited"))?;
    process::raise_descriptor_limit().map_err(start("the limit of open files"))?;
    let metrics = bind(flags.metrics_listen).await?;
    let ready = bind(flags.readiness_listen).await?;
    let drain = Drain::new();
    let readiness = Readiness::new();
    let flags = Arc::new(flags);
    let entrance = Entrance::start().map_err(start("the thread that enters pods' namespaces"))?;
    let shown = build(&flags, &drain, &readiness, entrance, level);

    let admin = shown.clone();
    let socket = flags.admin_socket.clone();
    tokio::spawn(async move {
        if let Err(error) = admin::interface(&admin).serve(&socket).await {
            tracing::error!(%error, "the admin interface is away");
        }
    });
    tokio::spawn(axum::serve(metrics, merge::router(shown.clone())).into_future());
    tokio::spawn(axum::serve(ready, readiness.router()).into_future());
    until_told(&shown, Duration::from_secs(flags.drain_deadline)).await
}

fn build(
    flags: &Arc<RunFlags>,
    drain: &Drain,
    readiness: &Readiness,
    entrance: Entrance,
    level: LogLevel,
) -> Shown {
    let control_plane = ControlPlane {
        url: flags.control_plane.clone(),
        name: flags.control_plane_name.clone(),
        root: flags.root_cert.clone(),
        token: flags.token.clone(),
    };
    let store = Store::new();
    let resources = Arc::new(Resources::default());
    let mut registry = Registry::default();
    let discovery = follow_control_plane(flags, &control_plane, &store, &resources, &mut registry);
    let counters = Counters::default();
    counters.register(registry.sub_registry_with_prefix("trefoil"));
    block_until_synced(&store, readiness);

    let keeper = Arc::new(Keeper::new(flags.run_dir.join("descriptors.sock")));
    let grants = Grants {
        entrance: entrance.clone(),
        keeper: Arc::clone(&keeper),
        resources: Arc::clone(&resources),
        signer: Arc::new(Authority::new(control_plane, AuthorityScope::Node, LIFETIME)),
        counters,
        drain: drain.clone(),
        drain_milliseconds: flags.drain_deadline * 1000,
    };
    let fleet = Fleet::new(Arc::clone(flags), grants);
    let node = Node::new(NodeParts {
        store: store.clone(),
        keeper,
        entrance,
        fleet: Arc::clone(&fleet),
        isolation: isolation(flags.isolation),
        trust_domain: flags.trust_domain.clone(),
        drain: drain.clone(),
    });
    let assigning = Arc::clone(&node);
    tokio::spawn(async move { assigning.assign().await });
    let feed = Feed {
        path: flags.run_dir.join("pods.sock"),
        node: Arc::clone(&node),
        readiness: readiness.clone(),
    };
    tokio::spawn(feed.follow());
    Shown {
        flags: Arc::clone(flags),
        store,
        resources,
        node,
        fleet,
        readiness: readiness.clone(),
        discovery,
        drain: drain.clone(),
        level,
        registry: Arc::new(registry),
    }
}

/// Begins with what was remembered, follows the control plane, and remembers.
fn follow_control_plane(
    flags: &RunFlags,
    control_plane: &ControlPlane,
    store: &Store,
    resources: &Arc<Resources>,
    registry: &mut Registry,
) -> tokio::sync::watch::Receiver<discovery::Status> {
    let remember = Remember::new(flags.state_dir.join("last-known-good"), REMEMBER);
    let held = remember.recall();
    for response in held.responses() {
        resources.accept(&response);
    }
    if resources.count() > 0 {
        tracing::info!(resources = resources.count(), "serving what was last known");
    }
    let node = discovery::Node {
        role: "ztunnel",
        pod: flags.pod.clone(),
        namespace: trefoil_api::names::MESH_NAMESPACE.into(),
        node: flags.node.clone(),
        addresses: Vec::new(),
    };
    let (updates, mut accepted) = mpsc::channel(16);
    let discovery = Discovery::new(control_plane.clone(), node, store.clone(), held).with_updates(updates);
    discovery.register(registry.sub_registry_with_prefix("istio"));
    let status = discovery.status();
    tokio::spawn(remember.run(discovery.held()));
    tokio::spawn(discovery.run());
    let resources = Arc::clone(resources);
    tokio::spawn(async move {
        while let Some(response) = accepted.recv().await {
            resources.accept(&response);
        }
    });
    status
}

fn block_until_synced(store: &Store, readiness: &Readiness) {
    let block = readiness.block("control plane: policies and workloads");
    let store = store.clone();
    tokio::spawn(async move {
        store.until_synced().await;
        drop(block);
    });
}

/// Drains when told to end; ends at once when told again.
async fn until_told(shown: &Shown, deadline: Duration) -> Result<(), SupervisorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(start("the signal handler"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start("the signal handler"))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = shown.drain.draining() => {}
    }
    tracing::info!(?deadline, "draining");
    let _block = shown.readiness.block("draining");
    tokio::select! {
        drained = shown.drain.drain(deadline + FAREWELL) => match drained {
            Drained::Complete => Ok(()),
            Drained::Forced { remaining } => Err(SupervisorError::Forced(remaining)),
        },
        _ = terminate.recv() => Err(SupervisorError::Aborted),
        _ = interrupt.recv() => Err(SupervisorError::Aborted),
    }
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, SupervisorError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(start(format!("listening on {address}")))
}

fn start(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> SupervisorError {
    let what = what.into();
    move |source| SupervisorError::Start { what, source }
}

fn isolation(flag: IsolationFlag) -> Isolation {
    match flag {
        IsolationFlag::Shared => Isolation::Shared,
        IsolationFlag::Namespace => Isolation::Namespace,
        IsolationFlag::Workload => Isolation::Workload,
    }
}
