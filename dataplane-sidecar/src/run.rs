//! The running sidecar: parts built from flags, then serving, then draining.

use std::io;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use serde_json::json;
use trefoil_api::names::port;
use trefoil_api::proto::trefoil::v1::Plane;
use trefoil_dataplane_core::proxy::{Pod, Requests};
use trefoil_dataplane_core::sockets::{OwnNamespace, listen};
use trefoil_dataplane_core::telemetry::Layer;
use trefoil_dataplane_dns::{Dns, datagrams};
use trefoil_dataplane_http::Parts;
use trefoil_dataplane_process::{Process, Signals};

use crate::options::Run;
use crate::placement;
use crate::requests::Reader;

/// Serves until told to end.
pub(crate) async fn run(options: &Run) -> anyhow::Result<()> {
    let signals = Signals::new().context("signals")?;
    let mut registry = Registry::default();
    let (http, store) = Parts::new(&mut registry);
    store.set_registry_only(options.registry_only);
    let sidecar = Process::new(&options.process, Layer::Sidecar, store, &mut registry)?;
    let sidecar = Arc::new(sidecar);
    let undeclared = http.undeclared.clone();
    let queries = trefoil_dataplane_dns::Metrics::register(registry.sub_registry_with_prefix("trefoil"));
    sidecar.listen_for_people(registry, options, move |sidecar| {
        let placement = placement::plane(&sidecar.store, &sidecar.workload);
        let redirected_by = placement.map(|plane: Plane| plane.as_str_name());
        json!({ "redirectedBy": redirected_by, "undeclared": undeclared.ports(&sidecar.store.snapshot()) })
    })?;
    tokio::spawn(
        sidecar
            .clone()
            .serve(|sidecar: &Process| take(sidecar, http, queries)),
    );
    sidecar.until_drained(signals).await;
    Ok(())
}

/// Takes the workload's traffic, and leaves it when another plane does.
fn take(sidecar: &Process, http: Parts, queries: trefoil_dataplane_dns::Metrics) -> io::Result<()> {
    let connections = sidecar.metrics.clone();
    let reader = |home| Arc::new(Reader::new(&home, http, connections)) as Arc<dyn Requests>;
    sidecar.proxy.add_reading_pod(pod(sidecar)?, reader);
    if let Err(error) = take_queries(sidecar, queries) {
        // Nobody is in the way of names for it: queries go where the application sends them.
        tracing::warn!(%error, "DNS queries are not answered here");
    }
    let (proxy, uid) = (sidecar.proxy.clone(), sidecar.options.pod_uid.clone());
    let retire = move || proxy.retire(&uid);
    tokio::spawn(placement::watch(
        sidecar.store.clone(),
        sidecar.workload.clone(),
        retire,
    ));
    Ok(())
}

/// Answers the workload's DNS queries, for as long as the process lives.
fn take_queries(sidecar: &Process, metrics: trefoil_dataplane_dns::Metrics) -> io::Result<()> {
    let dns = Dns::new(
        sidecar.store.clone(),
        metrics,
        trefoil_dataplane_dns::Config::default(),
    );
    dns.add_pod(trefoil_dataplane_dns::Pod {
        uid: sidecar.options.pod_uid.clone(),
        namespace: sidecar.options.namespace.clone(),
        name: sidecar.options.pod.clone(),
        datagrams: datagrams::listen(port::SIDECAR_DNS)?,
        streams: listen(port::SIDECAR_DNS)?,
        sockets: Arc::new(OwnNamespace),
    })
}

fn pod(sidecar: &Process) -> io::Result<Pod> {
    Ok(Pod {
        uid: sidecar.options.pod_uid.clone(),
        namespace: sidecar.options.namespace.clone(),
        name: sidecar.options.pod.clone(),
        identity: sidecar.identity.clone(),
        workload_uid: sidecar.workload.clone(),
        outbound: listen(port::SIDECAR_OUTBOUND)?,
        inbound: listen(port::SIDECAR_INBOUND)?,
        hbone: listen(port::SIDECAR_HBONE)?,
        dialer: Arc::new(OwnNamespace),
    })
}
