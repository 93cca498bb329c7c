//! What the control plane says, over delta xDS: the store says of which types, what is understood
//! takes effect and is acknowledged, what is not is refused with its reasons, and after an interruption only
//! what changed is sent. It never decides anything about traffic.

mod control_plane;
mod held;
mod metrics;
mod node;
mod stream;
pub(crate) mod stubs;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use prometheus_client::registry::Registry;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;

pub use control_plane::{ControlPlane, ControlPlaneError};
pub use held::Held;
pub use node::Node;

use crate::Store;

/// Pauses between attempts to connect.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first failure; doubled by each further one.
    pub first: Duration,
    /// The longest.
    pub last: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(10),
            last: Duration::from_secs(15),
        }
    }
}

impl Backoff {
    /// The pause after so many failures in a row, with jitter: the half of it to all of it.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.min(16));
        doubled
            .min(self.last)
            .mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// A moment, shown as the seconds since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(Instant);

impl Default for Since {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl serde::Serialize for Since {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.elapsed().as_secs())
    }
}

/// How the stream is doing, for readiness, metrics and the admin interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// A stream is open.
    pub connected: bool,
    /// For how long it has been so, or not.
    #[serde(rename = "seconds")]
    pub since: Since,
    /// Streams that ended or could not be opened, since the start.
    pub terminations: u64,
    /// Responses taken, since the start.
    pub responses: u64,
    /// Why the last stream ended.
    pub failure: Option<String>,
    /// What of the last response with a refusal was refused, and why.
    pub refused: Vec<String>,
}

impl Status {
    /// Connected from now on, or not, unless it was so before.
    fn turn(&mut self, connected: bool) {
        if self.connected != connected {
            self.since = Since::default();
        }
        self.connected = connected;
    }
}

/// The client. [`Self::run`] it until the process ends.
pub struct Discovery {
    control_plane: ControlPlane,
    node: Node,
    store: Store,
    backoff: Backoff,
    held: watch::Sender<Held>,
    status: watch::Sender<Status>,
    updates: Option<mpsc::Sender<DeltaDiscoveryResponse>>,
    metrics: metrics::Metrics,
}

impl Discovery {
    /// A client that feeds `store` and begins with what is held already (remembered from an earlier process;
    /// the store is given it here).
    #[must_use]
    pub fn new(control_plane: ControlPlane, node: Node, store: Store, held: Held) -> Self {
        for response in held.responses() {
            for refusal in store.apply(&response) {
                tracing::warn!(%refusal, "a remembered resource is not understood");
            }
        }
        Self {
            control_plane,
            node,
            store,
            backoff: Backoff::default(),
            held: watch::Sender::new(held),
            status: watch::Sender::default(),
            updates: None,
            metrics: metrics::Metrics::default(),
        }
    }

    /// Hands out every response too, as [`Held::apply`] leaves it, in order; the stream waits for whoever
    /// takes them.
    #[must_use]
    pub fn with_updates(mut self, updates: mpsc::Sender<DeltaDiscoveryResponse>) -> Self {
        self.updates = Some(updates);
        self
    }

    /// Other pauses than the usual ones.
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Registers what the stream counts.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// How the stream is doing.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Connects, and connects again whenever the stream ends. Cancel it by dropping it.
    pub async fn run(self) {
        let mut failures = 0;
        loop {
            let before = self.status.borrow().responses;
            let Err(failure) = self.stream().await;
            let responses = self.status.borrow().responses;
            failures = if responses > before { 0 } else { failures + 1 };
            let pause = self.backoff.pause(failures);
            self.metrics.ended(&failure);
            tracing::warn!(%failure, ?pause, "the control plane's stream ended");
            self.status.send_modify(|status| {
                status.turn(false);
                status.terminations += 1;
                status.failure = Some(failure.to_string());
            });
            tokio::time::sleep(pause).await;
        }
    }
}
