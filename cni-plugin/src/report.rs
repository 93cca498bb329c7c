//! The agent's authenticated streams to the replicas of the control plane: says which plane redirects each pod of
//! the node, and hears when a withdrawal was acknowledged. It repeats everything after each reconnection, so
//! nothing that was said while nobody listened is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use trefoil_api::proto::trefoil::v1::{AgentReport, Plane, PodPlacement};

mod replicas;
mod stream;
#[cfg(test)]
mod tests;
mod withdrawals;

pub use stream::{ControlPlane, ReportError};
use withdrawals::Withdrawals;

/// Generated client and server of the stream.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod rpc {
    tonic::include_proto!("trefoil.v1");
}

/// What became of a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// Every peer answered.
    Acknowledged,
    /// These peers had not answered when the wait was over.
    Unanswered(Vec<String>),
    /// No replica of the control plane answered in time.
    ControlPlaneAway,
}

/// What is to be reported.
pub struct Reports {
    placements: Mutex<BTreeMap<String, PodPlacement>>,
    withdrawals: Mutex<Withdrawals>,
    changes: watch::Sender<u64>,
    streams: Mutex<Streams>,
}

/// The replicas that are reported to, and since when there are any, or none.
struct Streams {
    up: BTreeSet<SocketAddr>,
    /// By their names.
    known: BTreeSet<SocketAddr>,
    since: Instant,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            placements: Mutex::default(),
            withdrawals: Mutex::default(),
            changes: watch::Sender::new(0),
            streams: Mutex::new(Streams {
                up: BTreeSet::new(),
                known: BTreeSet::new(),
                since: Instant::now(),
            }),
        }
    }
}

impl Reports {
    /// Says what redirects a pod now.
    pub fn place(&self, placement: PodPlacement) {
        let mut placements = lock(&self.placements);
        if placements.get(&placement.uid) != Some(&placement) {
            placements.insert(placement.uid.clone(), placement);
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Says that a pod ended.
    pub fn remove(&self, uid: &str) {
        if lock(&self.placements).remove(uid).is_some() {
            self.changes.send_modify(|changes| *changes += 1);
        }
        lock(&self.withdrawals).end(uid);
    }

    /// Says that redirection of a pod is about to end, and waits until its peers know, at most `patience`.
    pub async fn withdraw(&self, placement: PodPlacement, patience: Duration) -> Withdrawal {
        let uid = placement.uid.clone();
        let over = lock(&self.withdrawals).begin(&uid, self.owing());
        self.place(PodPlacement {
            withdrawing: true,
            ..placement
        });
        // Whether all answered or the wait was over: what was heard counts.
        let _ = tokio::time::timeout(patience, over).await;
        lock(&self.withdrawals).end(&uid)
    }

    /// The replicas of the control plane that are reported to.
    #[must_use]
    pub fn replicas(&self) -> BTreeSet<SocketAddr> {
        lock(&self.streams).up.clone()
    }

    /// The replicas that have to answer: those that are reported to, and those that are known and are not; they have
    /// clients too.
    fn owing(&self) -> BTreeSet<SocketAddr> {
        let streams = lock(&self.streams);
        streams.up.union(&streams.known).copied().collect()
    }

    /// These are the replicas.
    fn know(&self, replicas: BTreeSet<SocketAddr>) {
        lock(&self.streams).known = replicas;
    }

    /// For how long any of them has been reported to, or none.
    #[must_use]
    pub fn connected_or_away(&self) -> Duration {
        lock(&self.streams).since.elapsed()
    }

    /// A stream is up from now on, or not; whether it was before.
    fn turn(&self, replica: SocketAddr, up: bool) -> bool {
        let mut streams = lock(&self.streams);
        let any = !streams.up.is_empty();
        let before = if up {
            !streams.up.insert(replica)
        } else {
            streams.up.remove(&replica)
        };
        if any == streams.up.is_empty() {
            streams.since = Instant::now();
        }
        before
    }

    /// What is reported of each pod.
    #[must_use]
    pub fn placements(&self) -> BTreeMap<String, PodPlacement> {
        lock(&self.placements).clone()
    }

    /// Keeps the streams up until the task is dropped.
    pub async fn run(self: Arc<Self>, control_plane: ControlPlane) {
        replicas::run(&self, &control_plane).await;
    }

    fn acknowledge(&self, uid: &str, replica: SocketAddr, unanswered: Vec<String>) {
        lock(&self.withdrawals).answered(uid, replica, unanswered);
    }
}

/// What the other end was told on this stream.
#[derive(Default)]
struct Told {
    placements: BTreeMap<String, PodPlacement>,
    greeted: bool,
}

impl Told {
    /// The report that brings the other end up to date; none if it is.
    fn next(&mut self, current: BTreeMap<String, PodPlacement>) -> Option<AgentReport> {
        let snapshot = !std::mem::replace(&mut self.greeted, true);
        let changed = |uid: &String, placement: &PodPlacement| self.placements.get(uid) != Some(placement);
        let pods: Vec<PodPlacement> = current
            .iter()
            .filter(|(uid, placement)| changed(uid, placement))
            .map(|(_, placement)| placement.clone())
            .collect();
        let before: BTreeSet<&String> = self.placements.keys().collect();
        let removed: Vec<String> = before
            .into_iter()
            .filter(|uid| !current.contains_key(*uid))
            .cloned()
            .collect();
        self.placements = current;
        (snapshot || !pods.is_empty() || !removed.is_empty()).then_some(AgentReport {
            pods,
            snapshot,
            removed,
        })
    }
}

/// A placement of a pod.
#[must_use]
pub fn placement(uid: &str, namespace: &str, name: &str, plane: Plane) -> PodPlacement {
    PodPlacement {
        uid: uid.into(),
        namespace: namespace.into(),
        name: name.into(),
        plane: plane.into(),
        withdrawing: false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
