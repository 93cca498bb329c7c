//! The running waypoint: parts built from flags, then serving, then draining.

use std::io;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use serde_json::json;
use trefoil_api::names::port;
use trefoil_dataplane_core::proxy::Waypoint;
use trefoil_dataplane_core::sockets::{OwnNamespace, listen};
use trefoil_dataplane_core::telemetry::Layer;
use trefoil_dataplane_http::Parts;
use trefoil_dataplane_process::{Process, Signals};

use crate::options::Run;
use crate::serve::serve;

/// Serves until told to end.
pub async fn run(options: &Run) -> anyhow::Result<()> {
    let signals = Signals::new().context("signals")?;
    let mut registry = Registry::default();
    let (http, store) = Parts::new(&mut registry);
    let waypoint = Process::new(&options.process, Layer::Waypoint, store, &mut registry)?;
    let waypoint = Arc::new(waypoint);
    let (gateway, undeclared) = (options.gateway.clone(), http.undeclared.clone());
    waypoint.listen_for_people(registry, options, move |waypoint| {
        let own = waypoint.store.workload(&waypoint.workload);
        let reached_by = own.map(|own| own.services.keys().cloned().collect::<Vec<_>>());
        json!({ "gateway": gateway, "reachedBy": reached_by, "undeclared": undeclared.ports(&waypoint.store.snapshot()) })
    })?;
    tokio::spawn(waypoint.clone().serve(|waypoint: &Process| take(waypoint, http)));
    waypoint.until_drained(signals).await;
    Ok(())
}

/// Takes tunnels.
fn take(waypoint: &Process, http: Parts) -> io::Result<()> {
    let served = Waypoint {
        uid: waypoint.options.pod_uid.clone(),
        identity: waypoint.identity.clone(),
        workload_uid: waypoint.workload.clone(),
        hbone: listen(port::HBONE)?,
        dialer: Arc::new(OwnNamespace),
    };
    let connections = waypoint.metrics.clone();
    serve(&waypoint.proxy, served, http, connections);
    Ok(())
}
