//! What a plane that reads HTTP has besides: its routes and the counters of requests.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::time::{MissedTickBehavior, interval};
use trefoil_api::proto::type_url;
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::Consumer;

use crate::routing::Routes;
use crate::telemetry::Metrics;
use crate::undeclared::Undeclared;

/// How often counters of workloads that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// The parts of a plane that reads HTTP.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Routes, which the store feeds.
    pub routes: Routes,
    /// Where requests are counted.
    pub requests: Metrics,
    /// Where it is noted which clients were waited for in vain.
    pub undeclared: Undeclared,
}

impl Parts {
    /// The parts, and a store whose policies come with what they ask of requests.
    #[must_use]
    pub fn new(registry: &mut Registry) -> (Self, Store) {
        let parts = Self {
            routes: Routes::default(),
            requests: Metrics::register(registry),
            undeclared: Undeclared::default(),
        };
        let consumer: Arc<dyn Consumer> = Arc::new(parts.routes.clone());
        let store = Store::reading_http([(type_url::HTTP_ROUTE, consumer)]);
        tokio::spawn(sweep(store.clone(), parts.requests.clone()));
        (parts, store)
    }
}

/// Forgets counters of workloads that are gone.
async fn sweep(store: Store, requests: Metrics) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let known = store.snapshot();
        requests.sweep(|uid| known.workload(uid).is_some());
    }
}
