//! The feed of pods to node proxies, ours or another implementation of the protocol. New pods go to the newest
//! connection, ends to all: two proxies overlap during an upgrade. It decides nothing: which pods are in the
//! feed is the agent's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trefoil_packets::{PacketError, PacketListener};

use crate::descriptors::DescriptorStore;
use crate::namespace::Namespace;

mod connection;
#[cfg(test)]
mod tests;

/// How long a node proxy may take to answer one message.
const ANSWER: Duration = Duration::from_secs(5);
/// The least time between two accepted connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait after a failure to accept: of descriptors there may be enough again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A pod that a node proxy is to serve.
#[derive(Clone, Debug)]
pub struct FedPod {
    /// Kubernetes uid.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Its service account.
    pub service_account: String,
    /// Its network.
    pub network: Namespace,
}

/// Why a pod is not served, or a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No node proxy took the pod in time.
    #[error("node proxy: {0} was not taken in time; is the node proxy running?")]
    NotTaken(String),
    /// The node proxy refused the pod.
    #[error("node proxy: refused {uid}: {reason}")]
    Refused {
        /// The pod.
        uid: String,
        /// What it said.
        reason: String,
    },
    /// The pod left the feed meanwhile.
    #[error("node proxy: {0} is no longer to be served")]
    Withdrawn(String),
    /// The node proxy's answer is not one of the protocol.
    #[error("node proxy: {0}")]
    Protocol(&'static str),
    /// The connection failed.
    #[error("node proxy: {0}")]
    Packet(#[from] PacketError),
    /// No answer to a message.
    #[error("node proxy: no answer within {} s", ANSWER.as_secs())]
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Delivery {
    Pending,
    Accepted { connection: u64 },
    Refused(String),
}

#[derive(Debug)]
enum Command {
    Add(String),
    Del(String),
}

struct Entry {
    pod: FedPod,
    delivery: watch::Sender<Delivery>,
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<String, Entry>,
    /// By number: the last is the newest.
    connections: BTreeMap<u64, mpsc::UnboundedSender<Command>>,
    last: u64,
    /// Pods that a node proxy was told to keep though their networks are not at hand.
    kept: BTreeSet<String>,
    /// Pods that were taken out of the feed: they are not to be kept.
    left: BTreeSet<String>,
    /// The node's pods, once they were listed.
    present: Option<BTreeSet<String>>,
}

/// The pods that node proxies are to serve.
pub struct Feed {
    inner: Mutex<Inner>,
    open: watch::Sender<bool>,
    store: Arc<DescriptorStore>,
}

impl Default for Feed {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Feed {
    /// A feed that nobody is answered from yet. What `store` has of a pod shows that a node proxy serves it.
    #[must_use]
    pub fn new(store: Arc<DescriptorStore>) -> Self {
        Self {
            inner: Mutex::default(),
            open: watch::Sender::new(false),
            store,
        }
    }

    /// Begins to answer connections: before, a snapshot would lack pods, which the node proxy would drop.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Whether connections are answered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Returns once connections are answered: what stands on the node is known then.
    pub async fn opened(&self) {
        // The sender is part of self: it cannot go away meanwhile.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Whether a node proxy is connected.
    #[must_use]
    pub fn connected(&self) -> bool {
        !self.lock().connections.is_empty()
    }

    /// Puts a pod into the feed, or replaces it. Does not wait for anybody.
    pub fn add(&self, pod: FedPod) {
        let mut inner = self.lock();
        let uid = pod.uid.clone();
        inner.kept.remove(&uid);
        inner.left.remove(&uid);
        let newest = inner.connections.last_key_value();
        if let (Some(entry), Some((newest, _))) = (inner.pods.get(&uid), newest) {
            let taken = Delivery::Accepted { connection: *newest };
            if same(&entry.pod, &pod) && *entry.delivery.borrow() == taken {
                return;
            }
        }
        if let Some((_, queue)) = newest {
            // A connection that is about to end: its successor gets the pod.
            queue.send(Command::Add(uid.clone())).ok();
        }
        match inner.pods.get_mut(&uid) {
            Some(entry) => {
                entry.pod = pod;
                entry.delivery.send_replace(Delivery::Pending);
            }
            None => {
                let delivery = watch::Sender::new(Delivery::Pending);
                inner.pods.insert(uid, Entry { pod, delivery });
            }
        }
    }

    /// Waits until the node proxy has taken a pod, so its listeners exist.
    pub async fn taken(&self, uid: &str, patience: Duration) -> Result<(), FeedError> {
        let mut delivery = {
            let inner = self.lock();
            let entry = inner.pods.get(uid);
            entry
                .ok_or_else(|| FeedError::Withdrawn(uid.into()))?
                .delivery
                .subscribe()
        };
        let settled = delivery.wait_for(|delivery| *delivery != Delivery::Pending);
        match tokio::time::timeout(patience, settled).await {
            Err(_) => Err(FeedError::NotTaken(uid.into())),
            Ok(Err(_)) => Err(FeedError::Withdrawn(uid.into())),
            Ok(Ok(settled)) => match &*settled {
                Delivery::Refused(reason) => Err(FeedError::Refused {
                    uid: uid.into(),
                    reason: reason.clone(),
                }),
                _ => Ok(()),
            },
        }
    }

    /// Takes a pod out of the feed: every node proxy is told.
    pub fn remove(&self, uid: &str) {
        let mut inner = self.lock();
        let fed = inner.pods.remove(uid).is_some();
        let kept = inner.kept.remove(uid);
        inner.left.insert(uid.into());
        if fed || kept {
            inner.end(uid);
        }
    }

    /// The node's pods, as the API server lists them: what was kept and is not among them has ended.
    pub fn set_present(&self, present: BTreeSet<String>) {
        let mut inner = self.lock();
        if inner.present.as_ref() == Some(&present) {
            return;
        }
        for uid in inner.kept.difference(&present) {
            inner.end(uid);
        }
        inner.kept.retain(|uid| present.contains(uid));
        inner.left.retain(|uid| present.contains(uid));
        inner.present = Some(present);
    }

    /// Uids of the pods in the feed.
    #[must_use]
    pub fn pods(&self) -> Vec<String> {
        self.lock().pods.keys().cloned().collect()
    }

    /// Accepts node proxies until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: PacketListener) {
        loop {
            let socket = match listener.accept().await {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!(%error, "a node proxy's connection was not accepted");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            let feed = Arc::clone(&self);
            tokio::spawn(async move {
                match feed.converse(&socket).await {
                    Ok(()) => tracing::info!("node proxy disconnected"),
                    Err(error) => tracing::warn!(%error, "node proxy's connection ended"),
                }
            });
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Tells every node proxy that a pod is not to be served any more.
    fn end(&self, uid: &str) {
        for queue in self.connections.values() {
            queue.send(Command::Del(uid.into())).ok();
        }
    }

    /// Pods that a node proxy serves and that are not in the feed, though nobody says that they are not to be
    /// served: their networks were not found, as yet.
    fn to_keep(&self, served: BTreeSet<String>) -> Vec<String> {
        let listed = |uid: &String| self.present.as_ref().is_none_or(|present| present.contains(uid));
        let unfed = served.into_iter().filter(|uid| !self.pods.contains_key(uid));
        unfed
            .filter(|uid| !self.left.contains(uid) && listed(uid))
            .collect()
    }
}

fn same(left: &FedPod, right: &FedPod) -> bool {
    let names = |pod: &FedPod| {
        (
            pod.namespace.clone(),
            pod.name.clone(),
            pod.service_account.clone(),
        )
    };
    names(left) == names(right) && left.network.identity() == right.network.identity()
}
