//! From signals to a drain: the first asks for it, the second ends the process.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::drain::Drained;

/// The signals that end a process: TERM and INT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from now on.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves with the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits until the process is asked to end, by a signal or by `drain` itself, then drains. A second
    /// signal cuts the deadline short.
    pub async fn drain(mut self, drain: &Drain, deadline: Duration) -> Drained {
        tokio::select! {
            () = self.next() => tracing::info!(?deadline, "asked to end: draining"),
            () = drain.draining() => tracing::info!(?deadline, "draining"),
        }
        let draining = drain.drain(deadline);
        tokio::pin!(draining);
        tokio::select! {
            drained = &mut draining => drained,
            () = self.next() => {
                tracing::warn!("asked again: ending now");
                drain.force();
                draining.await
            }
        }
    }
}
