//! DNS queries of pods, as their plane takes them: what the mesh knows is answered here, everything else goes on to the
//! resolver that was asked, over the transport that was chosen, and what that one says comes back as it is. Never may
//! a name be denied here: what is not known may exist. What decides (`message`, `names`) is free of I/O.

pub mod datagrams;
mod forward;
pub mod message;
mod metrics;
pub mod names;
mod pod;
mod stream;

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpListener;
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::sockets::{Dialer, Family, OwnNamespace};
use trefoil_dataplane_state::Store;

pub use metrics::Metrics;

use datagrams::Datagrams;
use pod::Served;

/// Where the sockets come from that ask resolvers.
pub trait Sockets: Dialer {
    /// A fresh datagram socket in the workload's namespace, exempt from its redirection.
    fn datagrams(&self, family: Family) -> BoxFuture<'_, io::Result<UdpSocket>>;
}

impl Sockets for OwnNamespace {
    fn datagrams(&self, family: Family) -> BoxFuture<'_, io::Result<UdpSocket>> {
        Box::pin(async move { datagrams::fresh(family) })
    }
}

/// A pod whose queries are taken.
pub struct Pod {
    /// Kubernetes uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where its queries arrive as datagrams.
    pub datagrams: UdpSocket,
    /// Where its queries arrive over TCP.
    pub streams: TcpListener,
    /// Sockets of its namespace.
    pub sockets: Arc<dyn Sockets>,
}

/// How queries are treated.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How often a pod's redirection is told that its queries are answered.
    pub pulse: Duration,
    /// How long a resolver has to answer. Clients wait for five seconds, as a rule: they are to hear of it before.
    pub patience: Duration,
    /// How long a TCP connection may be without a query.
    pub idle: Duration,
    /// A pod that leaves is served until it has asked nothing for this long.
    pub quiet: Duration,
    /// Queries of one pod that wait for a resolver at a time; more are answered with a failure at once.
    pub waiting: usize,
    /// TCP connections of one pod at a time; more wait at its listener.
    pub connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pulse: Duration::from_millis(500),
            patience: Duration::from_secs(4),
            idle: Duration::from_secs(10),
            quiet: Duration::from_secs(2),
            waiting: 512,
            connections: 64,
        }
    }
}

/// What takes the queries of any number of pods. It goes on while the process drains, to its end.
pub struct Dns {
    store: Store,
    metrics: Metrics,
    config: Config,
    pods: Mutex<HashMap<String, Drain>>,
}

impl Dns {
    /// Of no pods yet.
    #[must_use]
    pub fn new(store: Store, metrics: Metrics, config: Config) -> Self {
        Self {
            store,
            metrics,
            config,
            pods: Mutex::default(),
        }
    }

    /// Takes the queries of a pod from now on, in place of one with the same uid. Only once the mesh is known: whoever
    /// answers earlier knows no names.
    pub fn add_pod(&self, pod: Pod) -> io::Result<()> {
        let drain = Drain::new();
        let served = Arc::new(Served {
            store: self.store.clone(),
            metrics: self.metrics.clone(),
            config: self.config,
            namespace: pod.namespace,
            name: pod.name,
            sockets: pod.sockets,
            drain: drain.clone(),
            waiting: Arc::new(tokio::sync::Semaphore::new(self.config.waiting)),
        });
        let datagrams = Arc::new(Datagrams::new(pod.datagrams)?);
        drain.spawn(pod::answer_datagrams(served.clone(), datagrams));
        drain.spawn(stream::accept(served, pod.streams));
        if let Some(replaced) = self.lock().insert(pod.uid, drain) {
            replaced.force();
        }
        Ok(())
    }

    /// Lets a pod finish: what is still asked here is answered until nothing is.
    pub fn remove_pod(&self, uid: &str) {
        if let Some(drain) = self.lock().remove(uid) {
            drain.begin();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Drain>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
