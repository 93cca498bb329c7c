//! The committer: one thread that runs transactions in order and flushes once for all that were waiting.
//!
//! Nothing is shown to readers or answered to writers before the flush. After a failed one nothing is written
//! any more: what a disk that refused a flush holds is not known.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::disk::{Batch, Disk};
use super::{Event, Shared, Snapshot, StoreError, Transaction};

/// Transactions that share one flush.
const GROUP: usize = 512;

/// Tells a writer how the commit went.
pub(super) type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A transaction to run: whether its changes are to be kept, and how to tell its writer.
pub(super) type Job = Box<dyn FnOnce(&mut Transaction) -> (bool, Finish) + Send>;

/// Starts the thread. It ends when no writer is left; what is returned then says `true`.
pub(super) fn spawn(
    disk: Disk,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
) -> Result<watch::Receiver<bool>, StoreError> {
    let (closed, closing) = watch::channel(false);
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            run(&disk, &shared, queue);
            drop(disk);
            // Nobody may be waiting.
            let _ = closed.send(true);
        })
        .map_err(|error| StoreError::Open(error.to_string()))?;
    Ok(closing)
}

fn run(disk: &Disk, shared: &Shared, mut queue: mpsc::Receiver<Job>) {
    let mut failed: Option<StoreError> = None;
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < GROUP
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let group = Group::run(&shared.snapshot.load_full(), jobs);
        let result = match &failed {
            Some(error) => Err(error.clone()),
            None => group.commit(disk, shared),
        };
        if let Err(error) = &result
            && failed.is_none()
        {
            tracing::error!(%error, "the store takes no more writes");
            failed = Some(error.clone());
        }
        for finish in group.finishes {
            finish(result.clone());
        }
    }
}

/// Transactions on their way to one flush.
struct Group {
    snapshot: Snapshot,
    events: Vec<Arc<Event>>,
    finishes: Vec<Finish>,
}

impl Group {
    fn run(snapshot: &Snapshot, jobs: Vec<Job>) -> Self {
        let mut group = Self {
            snapshot: snapshot.clone(),
            events: Vec::new(),
            finishes: Vec::with_capacity(jobs.len()),
        };
        for job in jobs {
            let mut transaction = Transaction::new(group.snapshot.objects.clone(), group.snapshot.revision);
            let (keep, finish) = job(&mut transaction);
            if keep {
                group.snapshot = Snapshot {
                    revision: transaction.revision,
                    objects: transaction.objects,
                };
                group.events.extend(transaction.events);
            }
            group.finishes.push(finish);
        }
        group
    }

    fn commit(&self, disk: &Disk, shared: &Shared) -> Result<(), StoreError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        let mut sized = Vec::with_capacity(self.events.len());
        for event in &self.events {
            let size = match &event.after {
                Some(value) => {
                    let bytes =
                        serde_json::to_vec(&**value).map_err(|error| StoreError::Write(error.to_string()))?;
                    let size = bytes.len();
                    batch.put(&event.key, bytes);
                    size
                }
                None => {
                    batch.delete(&event.key);
                    0
                }
            };
            sized.push((event.clone(), size));
        }
        disk.commit(batch, self.snapshot.revision)?;
        // History first: whoever lists the new content can then watch from it.
        shared.history.extend(sized);
        shared.snapshot.store(Arc::new(self.snapshot.clone()));
        shared.head.send_replace(self.snapshot.revision);
        Ok(())
    }
}
