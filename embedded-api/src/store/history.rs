//! The latest events, in a ring: what watches read.
//!
//! Watchers hold a revision, not a queue, so that a slow one costs nothing: it is told that its revision has
//! expired when the ring has moved on. The ring must stay bounded in events and in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::Key;

/// Events that are kept.
pub(super) const EVENTS: usize = 16_384;
/// Bytes of the objects in them, as they are on disk.
const BYTES: usize = 64 * 1024 * 1024;

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// The change's revision.
    pub revision: u64,
    /// Which object.
    pub key: Key,
    /// What it was; absent for a creation. For a deletion: with the deletion's resource version.
    pub before: Option<Arc<Value>>,
    /// What it is; absent for a deletion.
    pub after: Option<Arc<Value>>,
}

/// The history does not reach that far back (or that revision is none of this store's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} (oldest: {oldest})")]
pub struct Expired {
    /// What was asked for.
    pub asked: u64,
    /// The oldest revision after which everything is known.
    pub oldest: u64,
}

#[derive(Debug)]
struct Ring {
    /// Everything after this revision is in the ring.
    oldest: u64,
    /// The revision of the last event.
    latest: u64,
    bytes: usize,
    events: VecDeque<(Arc<Event>, usize)>,
}

/// The ring, shared by the committer and the watches.
#[derive(Debug)]
pub(super) struct History(Mutex<Ring>);

impl History {
    pub(super) fn new(revision: u64) -> Self {
        Self(Mutex::new(Ring {
            oldest: revision,
            latest: revision,
            bytes: 0,
            events: VecDeque::new(),
        }))
    }

    /// Appends events, each with its size, and forgets the oldest beyond the bounds.
    pub(super) fn extend(&self, events: impl IntoIterator<Item = (Arc<Event>, usize)>) {
        let mut ring = self.lock();
        for (event, size) in events {
            ring.latest = event.revision;
            ring.bytes += size;
            ring.events.push_back((event, size));
        }
        while ring.events.len() > EVENTS || ring.bytes > BYTES {
            let Some((event, size)) = ring.events.pop_front() else {
                break;
            };
            ring.bytes -= size;
            ring.oldest = event.revision;
        }
    }

    /// At most `limit` events after a revision.
    pub(super) fn after(&self, revision: u64, limit: usize) -> Result<Vec<Arc<Event>>, Expired> {
        let ring = self.lock();
        if revision < ring.oldest || revision > ring.latest {
            return Err(Expired {
                asked: revision,
                oldest: ring.oldest,
            });
        }
        let start = ring
            .events
            .partition_point(|(event, _)| event.revision <= revision);
        Ok(ring
            .events
            .range(start..)
            .take(limit)
            .map(|(event, _)| event.clone())
            .collect())
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
