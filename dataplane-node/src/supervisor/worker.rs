//! One worker as the supervisor sees it: what it is assigned, what it was told, and how it lives. The
//! assignment outlives the process: a successor is told the same. No I/O.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use trefoil_api::Identity;
use trefoil_api::proto::trefoil::worker::{AddPod, RemovePod, to_worker};

use super::pod::Pod;
use super::questions::Questions;
use super::scope::Scope;

#[cfg(test)]
pub(super) mod tests;

/// A worker: of one scope, under one user id.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Whose pods it serves.
    pub scope: Scope,
    /// The user id of its process.
    pub user: u32,
    /// What it is asked over the admin interface.
    pub questions: Questions,
    assigned: Mutex<BTreeMap<String, Assigned>>,
    changed: Notify,
    idle: Notify,
    keys: Mutex<Option<Arc<OwnedFd>>>,
    life: Mutex<Life>,
    restarts: AtomicU64,
}

/// A pod as this worker has it.
#[derive(Debug)]
struct Assigned {
    assignment: Assignment,
    /// Whether it is to be served; else it is only let finish.
    wanted: bool,
    /// What the process was told to serve.
    told: Option<Assignment>,
    /// Removals that the process has not said to be finished.
    draining: usize,
    /// The process said that it serves it.
    confirmed: bool,
    /// Why the process does not serve it, as it says.
    error: String,
}

/// A pod, and the trust domain of its identity.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Of its identity.
    pub trust_domain: String,
}

impl Assignment {
    /// The one identity that a worker gets a signature for when it asks for this pod.
    #[must_use]
    pub(crate) fn identity(&self) -> Option<Identity> {
        Identity::new(&self.trust_domain, &self.pod.namespace, &self.pod.service_account).ok()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pod, &other.pod) && self.trust_domain == other.trust_domain
    }
}

/// How the process lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// Its process id; none while there is no process.
    pub process: Option<u32>,
    /// What it awaits before it serves.
    pub pending: Vec<String>,
    /// It said what it awaits.
    pub spoke: bool,
}

/// Something to tell the process, and the pod whose listeners go with it.
#[derive(Debug)]
pub(crate) struct Order {
    /// What.
    pub payload: to_worker::Payload,
    /// Its listeners are to be sent too.
    pub listeners_of: Option<Arc<Pod>>,
}

/// A pod of a worker, to be shown.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct PodSummary {
    /// Kubernetes uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `serving`, `waiting` or `draining`.
    pub state: &'static str,
    /// Why it is not served.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl Worker {
    /// A worker without pods and without a process.
    #[must_use]
    pub(crate) fn new(scope: Scope, user: u32) -> Self {
        Self {
            scope,
            user,
            questions: Questions::default(),
            assigned: Mutex::default(),
            changed: Notify::new(),
            idle: Notify::new(),
            keys: Mutex::default(),
            life: Mutex::default(),
            restarts: AtomicU64::new(0),
        }
    }

    /// Has a pod served.
    pub(crate) fn assign(&self, assignment: Assignment) {
        let uid = assignment.pod.uid.clone();
        let mut assigned = lock(&self.assigned);
        let entry = assigned.entry(uid).or_insert_with(|| Assigned {
            assignment: assignment.clone(),
            wanted: true,
            told: None,
            draining: 0,
            confirmed: false,
            error: String::new(),
        });
        entry.assignment = assignment;
        entry.wanted = true;
        drop(assigned);
        self.changed.notify_one();
    }

    /// Has a pod served no more: what it carries is let finish.
    pub(crate) fn unassign(&self, uid: &str) {
        if let Some(entry) = lock(&self.assigned).get_mut(uid) {
            entry.wanted = false;
        }
        self.changed.notify_one();
    }

    /// The pod that the worker may act for under this uid. Nothing for any other: this is what bounds it.
    #[must_use]
    pub(crate) fn assignment(&self, uid: &str) -> Option<Assignment> {
        let assigned = lock(&self.assigned);
        assigned.get(uid).map(|entry| entry.assignment.clone())
    }

    /// What the process is to be told so that it does what is assigned.
    pub(crate) fn orders(&self) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut assigned = lock(&self.assigned);
        assigned.retain(|uid, entry| {
            let right = entry.wanted && entry.told.as_ref().is_some_and(|told| told.is(&entry.assignment));
            if !right && entry.told.take().is_some() {
                entry.draining += 1;
                entry.confirmed = false;
                orders.push(Order {
                    payload: to_worker::Payload::RemovePod(RemovePod { uid: uid.clone() }),
                    listeners_of: None,
                });
            }
            if entry.wanted && !right {
                orders.push(add(&entry.assignment));
                entry.told = Some(entry.assignment.clone());
            }
            entry.wanted || entry.draining > 0
        });
        self.note_idleness(&assigned);
        orders
    }

    /// Resolves once [`Self::orders`] may have something.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The process says that it finished with a pod.
    pub(crate) fn drained(&self, uid: &str) {
        let mut assigned = lock(&self.assigned);
        assigned.retain(|other, entry| {
            if other == uid {
                entry.draining = entry.draining.saturating_sub(1);
            }
            other != uid || entry.wanted || entry.told.is_some() || entry.draining > 0
        });
        self.note_idleness(&assigned);
    }

    /// The process says whether it serves a pod.
    pub(crate) fn added(&self, uid: &str, error: String) {
        if let Some(entry) = lock(&self.assigned).get_mut(uid) {
            entry.confirmed = error.is_empty();
            entry.error = error;
        }
    }

    /// A process has begun.
    pub(crate) fn begun(&self, process: Option<u32>) {
        *lock(&self.life) = Life {
            process,
            ..Life::default()
        };
    }

    /// The process has ended: what it was to let finish is finished, and its successor was told nothing.
    pub(crate) fn ended(&self) {
        lock(&self.assigned).retain(|_, entry| {
            entry.told = None;
            entry.draining = 0;
            entry.confirmed = false;
            entry.wanted
        });
        *lock(&self.life) = Life::default();
        self.questions.forget();
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// The process says what it awaits.
    pub(crate) fn awaits(&self, pending: Vec<String>) {
        let mut life = lock(&self.life);
        life.pending = pending;
        life.spoke = true;
    }

    /// How the process lives.
    #[must_use]
    pub(crate) fn life(&self) -> Life {
        lock(&self.life).clone()
    }

    /// How many processes ended.
    #[must_use]
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The keys that the last process had stored.
    #[must_use]
    pub(crate) fn keys(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.keys).clone()
    }

    /// Keeps keys for the next process.
    pub(crate) fn keep_keys(&self, keys: Arc<OwnedFd>) {
        *lock(&self.keys) = Some(keys);
    }

    /// Whether it has nothing to serve and nothing to finish.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.assigned).is_empty()
    }

    /// Resolves once it has become idle.
    pub(crate) async fn until_idle(&self) {
        while !self.is_idle() {
            self.idle.notified().await;
        }
    }

    fn note_idleness(&self, assigned: &BTreeMap<String, Assigned>) {
        if assigned.is_empty() {
            self.idle.notify_one();
        }
    }

    /// Its pods.
    #[must_use]
    pub(crate) fn pods(&self) -> Vec<PodSummary> {
        let assigned = lock(&self.assigned);
        assigned.values().map(Assigned::summary).collect()
    }
}

impl Assigned {
    fn summary(&self) -> PodSummary {
        let pod = &self.assignment.pod;
        let state = match (self.wanted, self.confirmed) {
            (true, true) => "serving",
            (true, false) => "waiting",
            (false, _) => "draining",
        };
        PodSummary {
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            state,
            error: self.error.clone(),
        }
    }
}

fn add(assignment: &Assignment) -> Order {
    let pod = &assignment.pod;
    let (listeners, datagrams) = pod.ports();
    Order {
        payload: to_worker::Payload::AddPod(AddPod {
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
            trust_domain: assignment.trust_domain.clone(),
            listeners,
            datagrams,
            node: String::new(),
            generation: pod.generation,
        }),
        listeners_of: Some(Arc::clone(pod)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
