//! The embedded store: objects as JSON over sled, one writer, many readers of immutable snapshots.
//!
//! A write is on disk before it is acknowledged and before anybody can read it. This module must never
//! know what the objects mean, and nothing outside of it may know that sled is underneath.

mod commit;
mod disk;
mod history;
#[cfg(test)]
mod tests;
mod transaction;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::history::{Event, Expired};
pub use self::transaction::Transaction;
use self::{commit::Job, history::History};

/// Writers that may wait for the committer; further ones wait to enter.
const QUEUE: usize = 1024;

/// Why the store cannot do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Opening failed: the folder is locked by another process, unreadable or damaged.
    #[error("cannot open the store: {0}")]
    Open(String),
    /// A record is not what this program wrote.
    #[error("damaged record {0}")]
    Damaged(String),
    /// The disk refused; nothing is written any more, since what is on disk is not known.
    #[error("cannot write to the store: {0}; restart once the disk is well")]
    Write(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Where an object lives. Ordered so that one resource's objects, and one namespace's of them, are neighbours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The resource, such as `pods` or `gateways.gateway.networking.k8s.io`.
    pub resource: Arc<str>,
    /// The namespace, empty for objects of the whole mesh.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    #[must_use]
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// Objects by key.
pub type Objects = OrdMap<Key, Arc<Value>>;

/// The store's content at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The revision of the last change in it.
    pub revision: u64,
    /// Every object.
    pub objects: Objects,
}

impl Snapshot {
    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a resource, in one namespace or in all, in the order of their keys.
    pub fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 'a {
        transaction::range(&self.objects, resource, namespace)
    }
}

/// What readers and the committer share.
#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    history: History,
    head: watch::Sender<u64>,
}

/// The store. Cheap to clone; the last clone that goes closes it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    closed: watch::Receiver<bool>,
}

impl Store {
    /// Opens the store in a folder, which is made if absent (mode 0700: it holds keys).
    ///
    /// # Errors
    /// When the folder is in use, unreadable, or holds something else.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let (disk, snapshot) = disk::Disk::open(folder)?;
        let shared = Arc::new(Shared {
            history: History::new(snapshot.revision),
            head: watch::Sender::new(snapshot.revision),
            snapshot: ArcSwap::from_pointee(snapshot),
        });
        let (jobs, queue) = mpsc::channel(QUEUE);
        let closed = commit::spawn(disk, shared.clone(), queue)?;
        Ok(Self { shared, jobs, closed })
    }

    /// The content as of the last acknowledged write.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The latest revision, and a wait for later ones.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    /// At most `limit` events after a revision, in order.
    ///
    /// # Errors
    /// [`Expired`] when the history no longer reaches that far back.
    pub fn events_after(&self, revision: u64, limit: usize) -> Result<Vec<Arc<Event>>, Expired> {
        self.shared.history.after(revision, limit)
    }

    /// Runs a transaction: what it put and deleted is on disk, all of it, when this returns its `Ok`; and none
    /// of it ever is when it returns its own error. Transactions run one after the other.
    ///
    /// # Errors
    /// The transaction's own, or the store's when the disk refuses.
    pub async fn write<T, E, F>(&self, run: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Transaction) -> Result<T, E> + Send + 'static,
    {
        self.try_write(true, run).await
    }

    /// As [`write`](Self::write); without `keep` nothing is kept, and the answer is what would have been.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn try_write<T, E, F>(&self, keep: bool, run: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Transaction) -> Result<T, E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let result = run(transaction);
            let keep = keep && result.is_ok();
            let finish: commit::Finish = Box::new(move |committed| {
                // A caller that has gone away does not want to know.
                let _ = answer.send(committed.map_err(E::from).and(result));
            });
            (keep, finish)
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Closes the store once every clone has gone, and waits for it: afterwards the folder can be opened again.
    pub async fn close(self) {
        let Self { jobs, mut closed, .. } = self;
        drop(jobs);
        // An error means that the committer has ended, which is what was waited for.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}
