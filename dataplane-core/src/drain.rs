//! Draining as a value: whoever holds a clone learns that it is to finish, whoever tracks its tasks learns
//! when all have. A forced deadline always follows the graceful wish. It decides nothing about what finishing
//! means.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

#[cfg(test)]
mod tests;

/// A wish to finish, and the tasks that it is for.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// Take nothing new, let the rest finish.
    graceful: CancellationToken,
    /// Stop now.
    forced: CancellationToken,
    tasks: TaskTracker,
    /// Of what this is a part: they wait for its tasks too.
    wholes: Vec<TaskTracker>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended by itself.
    Complete,
    /// The deadline came first: this many tasks were told to stop.
    Forced {
        /// Tasks that had not ended.
        remaining: usize,
    },
}

impl Drain {
    /// Nothing is draining yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A part of this that can be drained alone, and is when this is, which then waits for its tasks too.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            graceful: self.graceful.child_token(),
            forced: self.forced.child_token(),
            tasks: TaskTracker::new(),
            wholes: self.wholes.iter().chain([&self.tasks]).cloned().collect(),
        }
    }

    /// Resolves once draining has begun: take nothing new.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.graceful.cancelled()
    }

    /// Whether draining has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.graceful.is_cancelled()
    }

    /// Resolves once the deadline has passed: stop now.
    pub fn forced(&self) -> WaitForCancellationFuture<'_> {
        self.forced.cancelled()
    }

    /// Begins draining, without waiting.
    pub fn begin(&self) {
        self.graceful.cancel();
    }

    /// Stops what is left, without waiting.
    pub fn force(&self) {
        self.graceful.cancel();
        self.forced.cancel();
    }

    /// Runs a task that draining waits for, and that the deadline ends.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let forced = self.forced.clone();
        let wholes: Vec<_> = self.wholes.iter().map(TaskTracker::token).collect();
        self.tasks.spawn(async move {
            let _wholes = wholes;
            forced.run_until_cancelled(task).await
        })
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.tasks.len()
    }

    /// Begins draining and waits for the tasks; after the deadline they are stopped.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.begin();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok() {
            return Drained::Complete;
        }
        let remaining = self.tasks.len();
        self.force();
        self.tasks.wait().await;
        Drained::Forced { remaining }
    }
}
