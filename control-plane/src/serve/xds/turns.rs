//! What clients take in turns, so that memory is bounded when a whole fleet comes at once: responses with everything
//! in them, and first requests, which name all that is held. A turn ends by itself after a while: one that is slow
//! holds up nobody for longer.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// KiB of responses with everything in them that may be on their way at a time.
const ROOM: usize = 64 << 10;
/// First requests that are read at a time.
const READ: usize = 16;
/// How long others wait for a client to say what it holds.
const READING: Duration = Duration::from_secs(5);
/// How long others wait for a client to take everything. Shorter, and where all are slow because there is much to do, all
/// would be sent to at once, and be slower.
const SENDING: Duration = Duration::from_secs(30);

/// Of all clients. Cloning shares.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    room: Arc<Semaphore>,
    read: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(ROOM)),
            read: Arc::new(Semaphore::new(READ)),
        }
    }
}

impl Turns {
    /// Waits for a turn to be read.
    pub(super) async fn to_be_read(&self) -> Turn {
        Turn::of(self.read.clone(), 1, READING).await
    }

    /// Waits for a turn to be sent so many bytes.
    async fn wait(self, bytes: usize) -> Turn {
        let kibibytes = (bytes >> 10).clamp(1, ROOM);
        Turn::of(self.room, u32::try_from(kibibytes).unwrap_or(u32::MAX), SENDING).await
    }
}

/// Until it is dropped, or has lasted long enough.
#[derive(Debug)]
pub(super) struct Turn {
    _over: DropGuard,
}

impl Turn {
    async fn of(places: Arc<Semaphore>, wanted: u32, longest: Duration) -> Self {
        // Nobody closes it.
        let permit = places.acquire_many_owned(wanted).await.ok();
        let over = CancellationToken::new();
        let turn = Self {
            _over: over.clone().drop_guard(),
        };
        tokio::spawn(async move {
            // Either way it is over.
            let _ = over.run_until_cancelled(tokio::time::sleep(longest)).await;
            drop(permit);
        });
        turn
    }
}

/// The turn of one client to be sent everything.
#[derive(Default)]
pub(super) struct Sending {
    waiting: Option<Pin<Box<dyn Future<Output = Turn> + Send>>>,
    turn: Option<Turn>,
}

impl Sending {
    /// Begins to wait, unless it does, or its turn has come.
    pub(super) fn want(&mut self, turns: &Turns, bytes: usize) {
        if self.waiting.is_none() && self.turn.is_none() {
            self.waiting = Some(Box::pin(turns.clone().wait(bytes)));
        }
    }

    /// Waits until the turn comes; for ever where none is wanted.
    pub(super) async fn comes(&mut self) {
        match &mut self.waiting {
            Some(waiting) => self.turn = Some(waiting.await),
            None => std::future::pending().await,
        }
        self.waiting = None;
    }

    /// The turn is over. Whether there was one.
    pub(super) fn end(&mut self) -> bool {
        self.turn.take().is_some()
    }
}
