//! The proxy of any number of pods: accept, identify, decide, connect, forward, report. Where its sockets
//! come from and which identities it may act as is given to it; it never takes either by itself.

mod accept;
mod connections;
mod evaluate;
mod failure;
mod home;
mod inbound;
mod outbound;
mod pod;
mod probe;
mod requests;
#[cfg(test)]
mod tests;
mod tunnels;
mod waypoint;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

pub use connections::{Connection, Direction, Tracked};
pub use evaluate::NotAnswered;
pub use failure::Failure;
pub use home::{Home, Waypoint};
pub use inbound::Reached;
pub use pod::Pod;
pub use requests::{Leave, Readable, Requests};
pub use tunnels::{Stream, Streams};

use crate::Drain;
use crate::hbone::PoolConfig;
use crate::telemetry::{Layer, Metrics, Record, Reporter};
use accept::Capture;
use connections::Connections;
use pod::Served;
use probe::Probes;
use trefoil_dataplane_state::state::{Placement, Workload};
use trefoil_dataplane_state::{Certificates, Store};

/// What a proxy is made of.
pub struct ProxyParts {
    /// What is known of the mesh.
    pub store: Store,
    /// Certificates of the identities that it may act as.
    pub certificates: Arc<Certificates>,
    /// Where connections are counted.
    pub metrics: Metrics,
    /// How it behaves.
    pub config: ProxyConfig,
    /// When it is to finish.
    pub drain: Drain,
}

/// How a proxy behaves.
#[derive(Clone, Copy, Debug)]
pub struct ProxyConfig {
    /// Which plane this is: what its own refusals are blamed on.
    pub plane: Layer,
    /// How long tunnels live; the mesh's settings may say another age.
    pub pool: PoolConfig,
    /// A pod that leaves is served until nobody has connected for this long.
    pub quiet: Duration,
    /// How long a connection waits for its own workload to become known.
    pub patience: Duration,
    /// Connections that one pod may make, and as many that it may get, at a time; more wait at its listeners.
    pub connections: usize,
    /// Tunnels to one pod whose clients have not said who they are; more wait at its listener.
    pub strangers: usize,
    /// TLS handshakes that are done for one pod at a time.
    pub handshakes: usize,
    /// Tunnels that may lead to one pod at a time.
    pub tunnels: usize,
    /// Bytes that the tunnels from and to one pod may be sent before they are taken. Tunnels beyond get very
    /// little, but something.
    pub bytes: usize,
}

impl ProxyConfig {
    /// The usual behaviour of a plane.
    #[must_use]
    pub fn of(plane: Layer) -> Self {
        Self {
            plane,
            pool: PoolConfig::default(),
            quiet: Duration::from_secs(2),
            patience: Duration::from_secs(5),
            connections: 20_000,
            strangers: 512,
            handshakes: 32,
            tunnels: 4_096,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// The proxy.
pub struct Proxy {
    store: Store,
    certificates: Arc<Certificates>,
    metrics: Metrics,
    config: ProxyConfig,
    drain: Drain,
    connections: Arc<Connections>,
    probes: Probes,
    pods: RwLock<HashMap<String, Arc<Served>>>,
}

impl Proxy {
    /// A proxy that serves no pods yet. Its own tasks end when draining begins.
    #[must_use]
    pub fn new(parts: ProxyParts) -> Arc<Self> {
        let proxy = Arc::new(Self {
            store: parts.store,
            certificates: parts.certificates,
            metrics: parts.metrics,
            config: parts.config,
            drain: parts.drain,
            connections: Arc::default(),
            probes: Probes::default(),
            pods: RwLock::default(),
        });
        let watched = proxy.clone();
        // Policy is enforced while draining too: the task ends by the deadline, not by the wish.
        tokio::spawn(async move {
            tokio::select! {
                () = watched.enforce() => {}
                () = watched.sweep() => {}
                () = watched.drain.forced() => {}
            }
        });
        proxy
    }

    /// How tunnels that are made now live: as the mesh's settings say, else as this process was told.
    fn pool(&self) -> PoolConfig {
        let known = self.store.snapshot();
        let max_age = known.settings().map(|settings| settings.connection_max_age);
        PoolConfig {
            max_age: max_age.unwrap_or(self.config.pool.max_age),
            ..self.config.pool
        }
    }

    /// Serves a pod from now on, in place of one with the same uid.
    pub fn add_pod(self: &Arc<Self>, pod: Pod) {
        let (served, captures) = pod.split(self, None::<fn(Home) -> Arc<dyn Requests>>);
        self.serve(served, captures);
    }

    /// The same, of a pod whose `requests` are read.
    pub fn add_reading_pod(self: &Arc<Self>, pod: Pod, requests: impl FnOnce(Home) -> Arc<dyn Requests>) {
        let (served, captures) = pod.split(self, Some(requests));
        self.serve(served, captures);
    }

    /// Serves a waypoint from now on, whose `streams` say what becomes of what is asked in tunnels to it.
    pub fn add_waypoint(self: &Arc<Self>, waypoint: Waypoint, streams: impl FnOnce(Home) -> Streams) {
        let (served, listener) = waypoint.split(self);
        let served = Arc::new(served);
        let streams = streams(Home::new(self.clone(), served.clone()));
        self.serve(served, vec![(Capture::Hbone(streams), listener)]);
    }

    fn serve(self: &Arc<Self>, served: Arc<Served>, captures: Vec<(Capture, TcpListener)>) {
        self.certificates.fetch_ahead(&served.identity);
        served.start(self, captures);
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(replaced) = pods.insert(served.uid.clone(), served) {
            replaced.retire();
            replaced.stop();
        }
    }

    /// Stops serving a pod. Its listeners are closed only once their queues are empty, its clients are asked
    /// to leave, and what is established runs to its end. Returns once all has ended.
    pub async fn remove_pod(&self, uid: &str) {
        let removed = self
            .pods
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
        if let Some(pod) = removed {
            pod.retire();
            pod.stop();
            pod.ended().await;
            let identity = &pod.identity;
            let needed = self.served().iter().any(|other| other.identity == *identity);
            if !needed {
                self.certificates.forget(identity);
            }
        }
    }

    /// Asks the clients of a pod's tunnels to come again, and keeps serving them: they find the plane that
    /// redirection leads to now.
    pub fn retire(&self, uid: &str) {
        if let Some(pod) = self.pod(uid) {
            pod.retire();
        }
    }

    /// The connections there are, for the admin interface.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.connections.list()
    }

    /// Uids of the pods served.
    #[must_use]
    pub fn pods(&self) -> Vec<String> {
        self.served().iter().map(|pod| pod.uid.clone()).collect()
    }

    /// The record of a connection that arrives here from `source`.
    fn record(&self, source: SocketAddr) -> Record {
        let reporter = match self.config.plane {
            Layer::Waypoint => Reporter::Waypoint,
            _ => Reporter::Destination,
        };
        Record::new(&self.metrics, reporter, source)
    }

    fn pod(&self, uid: &str) -> Option<Arc<Served>> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).cloned()
    }

    fn served(&self) -> Vec<Arc<Served>> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.values().cloned().collect()
    }

    /// The pod of `server`, if it is served here and bytes of `client` may go to it from socket to socket.
    fn same_node(&self, client: &Workload, server: &Workload) -> Option<Arc<Served>> {
        let free = |placement: &Placement| !placement.network_policy_selected;
        let (from, to) = (client.placement.as_ref()?, server.placement.as_ref()?);
        if !free(from) || !free(to) {
            return None;
        }
        self.pod(&to.pod_uid)
            .filter(|pod| pod.workload_uid == server.uid && pod.identity == server.identity)
    }

    /// Cuts connections that policy no longer allows, whenever something has changed.
    async fn enforce(&self) {
        let mut changes = self.store.changes();
        while changes.changed().await.is_ok() {
            for live in self.connections.decided() {
                live.enforce(&self.store);
                tokio::task::consume_budget().await;
            }
        }
    }

    /// Forgets counters of workloads that are gone.
    async fn sweep(&self) {
        let mut ticks = interval(Duration::from_secs(60));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let known = self.store.snapshot();
            self.metrics.sweep(|uid| known.workload(uid).is_some());
            let policies = known.policies();
            self.metrics.sweep_policies(|policy| policies.contains(policy));
        }
    }
}
