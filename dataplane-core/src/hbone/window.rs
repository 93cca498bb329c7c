//! What the tunnels of one pod may be sent before it is taken. What was promised to another end cannot be taken
//! back, so a tunnel gets its part of the pod's budget when it is made, and keeps it: the more tunnels there
//! are, the less the next one gets. It never promises more than is accounted for here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[cfg(test)]
mod tests;

const KIB: u32 = 1024;
/// Of a tunnel's part, what one stream may have in flight: so many stalled streams hold up none.
const STALLED: u32 = 8;
/// Parts in KiB, and how much of the budget must be free for them, as a fraction of it.
const PARTS: [(u32, usize); 3] = [(8 * KIB, 2), (2 * KIB, 4), (KIB / 2, usize::MAX)];
/// What a tunnel gets of a budget that is used up, in KiB: without, it would carry nothing.
const LEAST: u32 = 256;
/// What a stream may have queued towards a tunnel that does not take it, in bytes.
const QUEUES: (usize, usize) = (16 * 1024, 256 * 1024);

/// The budget of one pod.
#[derive(Debug)]
pub struct Windows {
    /// In KiB.
    free: Arc<Semaphore>,
    total: usize,
}

/// The part of one tunnel, for its life.
#[derive(Debug)]
pub struct Window {
    kib: u32,
    part: Option<OwnedSemaphorePermit>,
}

impl Windows {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total = (bytes / 1024).min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
        }
    }

    /// The part of a tunnel that is made now.
    #[must_use]
    pub fn part(&self) -> Window {
        let enough = |kib: u32, share: usize| {
            let left = self.free.available_permits().checked_sub(kib as usize);
            left.is_some_and(|left| left >= self.total / share)
        };
        for (kib, share) in PARTS {
            if enough(kib, share)
                && let Ok(part) = self.free.clone().try_acquire_many_owned(kib)
            {
                return Window {
                    kib,
                    part: Some(part),
                };
            }
        }
        Window {
            kib: LEAST,
            part: None,
        }
    }
}

impl Window {
    /// Whether the budget was used up: this is the least that there is.
    #[must_use]
    pub fn is_least(&self) -> bool {
        self.part.is_none()
    }

    /// What all streams of the tunnel may have in flight towards readers that have not read it.
    pub(super) fn connection(&self) -> u32 {
        self.kib * KIB
    }

    /// What one stream may.
    pub(super) fn stream(&self) -> u32 {
        self.connection() / STALLED
    }

    /// What a stream may have queued towards the tunnel.
    pub(super) fn queue(&self) -> usize {
        (self.stream() as usize / 4).clamp(QUEUES.0, QUEUES.1)
    }
}
