//! The agent's authenticated stream to the control plane: says which plane redirects each pod of the node, and
//! hears when a withdrawal was acknowledged. It repeats everything after each reconnection, so nothing that
//! was said while nobody listened is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use trefoil_api::proto::trefoil::v1::{AgentReport, Plane, PodPlacement};

mod stream;
#[cfg(test)]
mod tests;

pub use stream::{ControlPlane, ReportError};

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
    /// The control plane did not answer in time.
    ControlPlaneAway,
}

/// What is to be reported.
pub struct Reports {
    placements: Mutex<BTreeMap<String, PodPlacement>>,
    withdrawals: Mutex<BTreeMap<String, oneshot::Sender<Vec<String>>>>,
    changes: watch::Sender<u64>,
    /// Whether the stream is up, and since when it has been so or not.
    connected: watch::Sender<(bool, Instant)>,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            placements: Mutex::default(),
            withdrawals: Mutex::default(),
            changes: watch::Sender::new(0),
            connected: watch::Sender::new((false, Instant::now())),
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
        lock(&self.withdrawals).remove(uid);
    }

    /// Says that redirection of a pod is about to end, and waits until its peers know, at most `patience`.
    pub async fn withdraw(&self, placement: PodPlacement, patience: Duration) -> Withdrawal {
        let (sender, receiver) = oneshot::channel();
        lock(&self.withdrawals).insert(placement.uid.clone(), sender);
        let uid = placement.uid.clone();
        self.place(PodPlacement {
            withdrawing: true,
            ..placement
        });
        let answered = tokio::time::timeout(patience, receiver).await;
        lock(&self.withdrawals).remove(&uid);
        match answered {
            Ok(Ok(unanswered)) if unanswered.is_empty() => Withdrawal::Acknowledged,
            Ok(Ok(unanswered)) => Withdrawal::Unanswered(unanswered),
            _ => Withdrawal::ControlPlaneAway,
        }
    }

    /// Whether the stream is up.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.borrow().0
    }

    /// For how long it has been so, or not.
    #[must_use]
    pub fn connected_or_away(&self) -> Duration {
        self.connected.borrow().1.elapsed()
    }

    /// Up from now on, or not; whether it was before.
    fn turn(&self, up: bool) -> bool {
        let mut before = false;
        self.connected.send_modify(|(connected, since)| {
            before = *connected;
            if before != up {
                *since = Instant::now();
            }
            *connected = up;
        });
        before
    }

    /// What is reported of each pod.
    #[must_use]
    pub fn placements(&self) -> BTreeMap<String, PodPlacement> {
        lock(&self.placements).clone()
    }

    /// Keeps the stream up until the task is dropped.
    pub async fn run(self: Arc<Self>, control_plane: ControlPlane) {
        stream::run(&self, &control_plane).await;
    }

    fn acknowledge(&self, uid: &str, unanswered: Vec<String>) {
        if let Some(waiting) = lock(&self.withdrawals).remove(uid) {
            waiting.send(unanswered).ok();
        }
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
