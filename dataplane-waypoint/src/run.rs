//! The running waypoint: parts built from flags, then serving, then draining.

use std::io;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use serde_json::json;
use trefoil_api::names::port;
use trefoil_dataplane_core::Store;
use trefoil_dataplane_core::drain::Signals;
use trefoil_dataplane_core::process::Process;
use trefoil_dataplane_core::proxy::Waypoint;
use trefoil_dataplane_core::sockets::{OwnNamespace, listen};
use trefoil_dataplane_core::telemetry::Layer;

use crate::options::Run;
use crate::serve::streams;

/// Serves until told to end.
pub async fn run(options: &Run) -> anyhow::Result<()> {
    let signals = Signals::new().context("signals")?;
    let mut registry = Registry::default();
    let store = Store::reading_http([]);
    let waypoint = Process::new(&options.process, Layer::Waypoint, store, &mut registry)?;
    let waypoint = Arc::new(waypoint);
    let gateway = options.gateway.clone();
    waypoint.listen_for_people(registry, options, move |waypoint| {
        let own = waypoint.store.workload(&waypoint.workload);
        let serves = own.map(|own| own.services.keys().cloned().collect::<Vec<_>>());
        json!({ "gateway": gateway, "reachedBy": serves })
    })?;
    tokio::spawn(waypoint.clone().serve(take));
    waypoint.until_drained(signals).await;
    Ok(())
}

/// Takes tunnels.
fn take(waypoint: &Process) -> io::Result<()> {
    let served = Waypoint {
        uid: waypoint.options.pod_uid.clone(),
        identity: waypoint.identity.clone(),
        workload_uid: waypoint.workload.clone(),
        hbone: listen(port::HBONE)?,
        dialer: Arc::new(OwnNamespace),
    };
    waypoint.proxy.add_waypoint(served, |_| streams());
    Ok(())
}
