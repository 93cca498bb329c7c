//! The pods of this node: taken from the agent's feed, kept in its store, given to workers. A pod's
//! listeners are open and stored before it is acknowledged; which worker serves it may be known later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use trefoil_api::proto::trefoil::descriptors::{Kind, Name};
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::Isolation;

use super::fleet::Fleet;
use super::keeper::{self, Keeper, KeeperError};
use super::namespace::{Entrance, Namespace};
use super::pod::{Description, Pod, stored_names};
use super::scope::{self, Described, Scope, described};
use super::worker::Assignment;

/// How long a pod waits for the control plane to describe it, where nothing is known of its namespace either.
/// Its connections queue meanwhile; then it gets a worker of its own until it is described.
const DESCRIPTION_PATIENCE: Duration = Duration::from_secs(3);

/// How long the node proxy before this one may take to notice a new agent, which it does in two seconds; agents wait
/// for five.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(100);

/// What the supervisor has to say about pods.
pub(crate) struct Node {
    parts: NodeParts,
    pods: Mutex<BTreeMap<String, Entry>>,
    changed: Notify,
    /// The agent has named all pods once.
    settled: AtomicBool,
    /// Until when a predecessor may still put back what the store does not have.
    predecessor_until: OnceLock<Instant>,
}

/// What [`Node`] is made of.
pub(crate) struct NodeParts {
    /// What is known of the mesh.
    pub store: Store,
    /// The agent's descriptor store.
    pub keeper: Arc<Keeper>,
    /// The way into pods' namespaces.
    pub entrance: Entrance,
    /// The workers.
    pub fleet: Arc<Fleet>,
    /// The isolation of pods for which the control plane leaves it to the node. Never of pods that it has not
    /// described: what was to be isolated would share for as long as the control plane is slow.
    pub isolation: Isolation,
    /// The trust domain of pods that the control plane has not described.
    pub trust_domain: String,
    /// While draining, pods are taken and kept for the successor, but not served.
    pub drain: Drain,
}

struct Entry {
    pod: Arc<Pod>,
    since: Instant,
    given: Option<(Scope, String)>,
    /// The pod was replaced since it was given: its worker has the one before.
    replaced: bool,
}

impl Entry {
    fn is_given(&self) -> bool {
        self.given.is_some() && !self.replaced
    }
}

/// What the store held when the feed was connected: listeners of pods that the agent is about to name.
#[derive(Default)]
pub(crate) struct Stored {
    descriptors: HashMap<(i32, String), OwnedFd>,
}

impl Stored {
    fn take(&mut self, name: &Name) -> Option<OwnedFd> {
        self.descriptors.remove(&(name.kind, name.key.clone()))
    }
}

/// Why a pod is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    /// Its namespace cannot be used, or its listeners not be opened.
    #[error("node proxy: {0}")]
    Namespace(#[from] std::io::Error),
    /// What must outlive this process is not stored.
    #[error("node proxy: {0}")]
    Keeper(#[from] KeeperError),
    /// Named to be kept, and not known here.
    #[error("node proxy: pod {0} is to be kept and is not known")]
    Unknown(String),
}

impl Node {
    /// No pods yet.
    #[must_use]
    pub(crate) fn new(parts: NodeParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            pods: Mutex::default(),
            changed: Notify::new(),
            settled: AtomicBool::new(false),
            predecessor_until: OnceLock::new(),
        })
    }

    /// The feed is connected: what the store holds is looked through, and what it does not hold is put
    /// there again, since the agent may be a new one.
    pub(crate) async fn connected(&self) -> Result<Stored, KeeperError> {
        let mut stored = Stored::default();
        for (name, descriptor) in self.parts.keeper.list().await? {
            if name.kind == i32::from(Kind::Keys) {
                self.parts.fleet.inherit(name.key, descriptor);
            } else {
                stored.descriptors.insert((name.kind, name.key), descriptor);
            }
        }
        for worker in self.parts.fleet.workers() {
            if let Some(keys) = worker.keys() {
                let name = keeper::keys(&worker.scope.to_string());
                self.parts.keeper.put(&[(name, keys.as_fd())]).await?;
            }
        }
        for pod in self.all() {
            self.parts.keeper.put(&pod.stored()).await?;
        }
        Ok(stored)
    }

    /// Takes a pod: opens or adopts its listeners and stores them.
    pub(crate) async fn add(
        &self,
        description: Description,
        network: OwnedFd,
        stored: &mut Stored,
    ) -> Result<(), PodError> {
        let uid = description.uid.clone();
        let network = Arc::new(Namespace::new(network)?);
        let known = self.pod(&uid).or_else(|| {
            let finishing = self.parts.fleet.assignment(&uid);
            finishing.map(|assignment| assignment.pod)
        });
        let pod = match known.filter(|pod| pod.is(&description, &network)) {
            Some(pod) => pod,
            None => Arc::new(self.open(description, network, stored).await?),
        };
        self.parts.keeper.put(&pod.stored()).await?;
        let mut pods = self.lock();
        let entry = pods.entry(uid).or_insert_with(|| Entry {
            pod: Arc::clone(&pod),
            since: Instant::now(),
            given: None,
            replaced: false,
        });
        if !Arc::ptr_eq(&entry.pod, &pod) {
            entry.pod = pod;
            entry.since = Instant::now();
            entry.replaced = true;
        }
        drop(pods);
        self.changed.notify_one();
        Ok(())
    }

    async fn open(
        &self,
        description: Description,
        network: Arc<Namespace>,
        stored: &mut Stored,
    ) -> Result<Pod, PodError> {
        match self.open_with(&description, &network, stored).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                self.await_listeners(&description, &network).await
            }
            opened => Ok(opened?),
        }
    }

    /// The ports of a pod are another node proxy's, which this one follows, and the store has nothing of them: its
    /// agent is a new one. The other puts them there as soon as it has noticed.
    async fn await_listeners(
        &self,
        description: &Description,
        network: &Arc<Namespace>,
    ) -> Result<Pod, PodError> {
        // Of this process, once: a pod whose own application holds these ports must not hold up others again and again.
        let deadline = *self
            .predecessor_until
            .get_or_init(|| Instant::now() + PREDECESSOR_PATIENCE);
        loop {
            tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)).await;
            let mut stored = Stored::default();
            for (name, descriptor) in self.parts.keeper.list().await? {
                stored.descriptors.insert((name.kind, name.key), descriptor);
            }
            match self.open_with(description, network, &mut stored).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {}
                opened => return Ok(opened?),
            }
        }
    }

    async fn open_with(
        &self,
        description: &Description,
        network: &Arc<Namespace>,
        stored: &mut Stored,
    ) -> std::io::Result<Pod> {
        let uid = &description.uid;
        // Listeners stored under this uid are this pod's only if they came from this very namespace.
        let same = stored
            .take(&keeper::namespace(uid))
            .and_then(|descriptor| Namespace::new(descriptor).ok())
            .is_some_and(|stored| stored.is(network));
        let at_hand = |listener| stored.take(&keeper::listener(uid, listener)).filter(|_| same);
        Pod::open(
            &self.parts.entrance,
            description.clone(),
            Arc::clone(network),
            at_hand,
        )
        .await
    }

    /// Whether this process leaves: its successor takes pods.
    pub(crate) fn is_leaving(&self) -> bool {
        self.parts.drain.is_draining()
    }

    /// The agent knows a pod and cannot give its namespace: it must be known here.
    pub(crate) fn keep(&self, uid: &str) -> Result<(), PodError> {
        let known = self.pod(uid).map(drop);
        known.ok_or_else(|| PodError::Unknown(uid.into()))
    }

    /// Lets a pod finish. Nothing of it remains stored.
    pub(crate) async fn remove(&self, uid: &str) -> Result<(), PodError> {
        self.release(uid);
        // A process that leaves lets its successor decide what is stored: the pod may have come back.
        if self.parts.drain.is_draining() {
            return Ok(());
        }
        Ok(self.parts.keeper.remove(stored_names(uid)).await?)
    }

    /// The agent has named all pods: whatever it did not name is let finish and stored no more.
    pub(crate) async fn settle(&self, named: &HashSet<String>, stored: Stored) -> Result<(), PodError> {
        let held: Vec<String> = self.lock().keys().cloned().collect();
        let mut names = Vec::new();
        for uid in held.iter().filter(|uid| !named.contains(*uid)) {
            self.release(uid);
            names.extend(stored_names(uid));
        }
        for (kind, key) in stored.descriptors.into_keys() {
            let uid = key.split('/').next().unwrap_or_default();
            if !named.contains(uid) {
                names.push(Name { kind, key });
            }
        }
        if !names.is_empty() {
            self.parts.keeper.remove(names).await?;
        }
        self.settled.store(true, Ordering::Release);
        self.changed.notify_one();
        Ok(())
    }

    fn release(&self, uid: &str) {
        let entry = self.lock().remove(uid);
        if let Some((scope, _)) = entry.and_then(|entry| entry.given) {
            self.parts.fleet.unassign(&scope, uid);
        }
    }

    /// Gives pods to workers, as what is known of them changes, until the process drains.
    pub(crate) async fn assign(&self) {
        let mut changes = self.parts.store.changes();
        loop {
            let waiting = self.reconcile();
            if waiting.is_none() && self.settled.load(Ordering::Acquire) {
                self.drop_orphaned_keys().await;
            }
            let patience = async {
                match waiting {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                changed = changes.changed() => if changed.is_err() { return },
                () = patience => {}
                () = self.parts.drain.draining() => return,
            }
        }
    }

    /// Every pod has its worker: keys of other scopes are nobody's.
    async fn drop_orphaned_keys(&self) {
        let orphaned = self.parts.fleet.disinherit();
        let names: Vec<Name> = orphaned.iter().map(|scope| keeper::keys(scope)).collect();
        if let Err(error) = self.parts.keeper.remove(names).await {
            tracing::warn!(%error, "keys of workers that are gone remain stored");
        }
    }

    /// Gives each pod to the worker it belongs to now; says until when the next undescribed one waits.
    fn reconcile(&self) -> Option<Instant> {
        let mut next = None;
        for (uid, entry) in self.lock().iter_mut() {
            let description = described(&self.parts.store, &entry.pod.workload_uid(), uid);
            // A pod that was given stays where it is while its description is away.
            if description.is_none() && entry.is_given() {
                continue;
            }
            let Some(isolation) = self.isolation(description.as_ref(), entry) else {
                let until = entry.since + DESCRIPTION_PATIENCE;
                next = Some(next.map_or(until, |next: Instant| next.min(until)));
                continue;
            };
            let scope = Scope::of(isolation, &entry.pod.namespace, uid);
            let trust_domain = description.map(|description| description.trust_domain);
            let trust_domain = trust_domain.unwrap_or_else(|| self.parts.trust_domain.clone());
            self.give(uid, entry, (scope, trust_domain));
        }
        next
    }

    /// What the control plane says, else what it says of the namespace. Nothing while that may still come;
    /// then the narrowest.
    fn isolation(&self, description: Option<&Described>, entry: &Entry) -> Option<Isolation> {
        let unspecified = self.parts.isolation;
        if let Some(description) = description {
            return Some(scope::specified(description.isolation, unspecified));
        }
        let known = scope::of_namespace(&self.parts.store, &entry.pod.namespace, unspecified);
        let patient = Instant::now() < entry.since + DESCRIPTION_PATIENCE;
        known.or_else(|| (!patient).then_some(Isolation::Workload))
    }

    fn give(&self, uid: &str, entry: &mut Entry, to: (Scope, String)) {
        if entry.given.as_ref() == Some(&to) && !entry.replaced {
            return;
        }
        let assignment = Assignment {
            pod: Arc::clone(&entry.pod),
            trust_domain: to.1.clone(),
        };
        // The new worker first: at no moment does nobody accept.
        self.parts.fleet.assign(&to.0, assignment);
        if let Some((former, _)) = &entry.given
            && *former != to.0
        {
            self.parts.fleet.unassign(former, uid);
        }
        tracing::info!(pod = entry.pod.name, namespace = entry.pod.namespace, scope = %to.0, "pod assigned");
        entry.given = Some(to);
        entry.replaced = false;
    }

    /// How many pods are held.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Pods that no worker has yet.
    #[must_use]
    pub(crate) fn unassigned(&self) -> Vec<String> {
        let pods = self.lock();
        let waiting = pods.iter().filter(|(_, entry)| !entry.is_given());
        waiting.map(|(uid, _)| uid.clone()).collect()
    }

    fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.lock().get(uid).map(|entry| Arc::clone(&entry.pod))
    }

    fn all(&self) -> Vec<Arc<Pod>> {
        self.lock().values().map(|entry| Arc::clone(&entry.pod)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
