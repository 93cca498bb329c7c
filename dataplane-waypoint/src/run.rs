//! The running waypoint: parts built from flags, then serving, then draining.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::time::interval;
use trefoil_api::names::port;
use trefoil_api::proto::type_url;
use trefoil_dataplane_core::Store;
use trefoil_dataplane_core::drain::Signals;
use trefoil_dataplane_core::proxy::Waypoint;
use trefoil_dataplane_core::sockets::{OwnNamespace, listen};
use trefoil_dataplane_core::state::Consumer;
use trefoil_dataplane_core::telemetry::Layer;
use trefoil_dataplane_http::Routes;
use trefoil_dataplane_http::telemetry::Metrics;
use trefoil_dataplane_process::Process;

use crate::options::Run;
use crate::serve::serve;

/// Serves until told to end.
pub async fn run(options: &Run) -> anyhow::Result<()> {
    let signals = Signals::new().context("signals")?;
    let mut registry = Registry::default();
    let routes = Routes::default();
    let consumer: Arc<dyn Consumer> = Arc::new(routes.clone());
    let store = Store::reading_http([(type_url::HTTP_ROUTE, consumer)]);
    let requests = Metrics::register(&mut registry);
    let waypoint = Process::new(&options.process, Layer::Waypoint, store, &mut registry)?;
    let waypoint = Arc::new(waypoint);
    let gateway = options.gateway.clone();
    waypoint.listen_for_people(registry, options, move |waypoint| {
        let own = waypoint.store.workload(&waypoint.workload);
        let reached_by = own.map(|own| own.services.keys().cloned().collect::<Vec<_>>());
        json!({ "gateway": gateway, "reachedBy": reached_by })
    })?;
    tokio::spawn(sweep(waypoint.store.clone(), requests.clone()));
    let take = |waypoint: &Process| take(waypoint, routes, requests);
    tokio::spawn(waypoint.clone().serve(take));
    waypoint.until_drained(signals).await;
    Ok(())
}

/// Takes tunnels.
fn take(waypoint: &Process, routes: Routes, requests: Metrics) -> io::Result<()> {
    let served = Waypoint {
        uid: waypoint.options.pod_uid.clone(),
        identity: waypoint.identity.clone(),
        workload_uid: waypoint.workload.clone(),
        hbone: listen(port::HBONE)?,
        dialer: Arc::new(OwnNamespace),
    };
    let connections = waypoint.metrics.clone();
    serve(&waypoint.proxy, served, routes, requests, connections);
    Ok(())
}

/// Forgets counters of workloads that are gone.
async fn sweep(store: Store, requests: Metrics) {
    let mut ticks = interval(Duration::from_secs(60));
    loop {
        ticks.tick().await;
        let known = store.snapshot();
        requests.sweep(|uid| known.workload(uid).is_some());
    }
}
