//! Metrics and readiness of the agent.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::pod::plane_name;
use super::shared::Shared;

type Labels = Vec<(&'static str, &'static str)>;

/// What is counted while the agent runs.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Attempts to bring a pod to its plane that failed.
    pub(crate) failures: Counter,
    switches: Family<Labels, Counter>,
}

impl Metrics {
    /// A pod's redirection changed.
    pub(crate) fn switched(&self, from: &'static str, to: &'static str) {
        let labels = vec![("from", from), ("to", to)];
        self.switches.get_or_create(&labels).inc();
    }
}

/// Routes of the metrics and readiness listener.
pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz/ready", get(ready))
        .with_state(shared)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("trefoil_agent");
    let pods: Family<Labels, Gauge> = Family::default();
    let unsettled = Gauge::<i64>::default();
    for (_, _, status) in shared.standing().values() {
        let status = status.borrow();
        if let Some(plane) = status.plane {
            pods.get_or_create(&vec![("plane", plane_name(plane))]).inc();
        }
        if !status.settled {
            unsettled.inc();
        }
    }
    let flag = |value: bool| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value.into());
        gauge
    };
    let kept = Gauge::<i64>::default();
    kept.set(i64::try_from(shared.store.len()).unwrap_or(i64::MAX));
    registry.register("pods", "Pods of the node by what redirects them", pods);
    registry.register(
        "pods_unsettled",
        "Pods that are not on their plane yet",
        unsettled,
    );
    registry.register(
        "switches",
        "Changes of what redirects a pod",
        shared.metrics.switches.clone(),
    );
    registry.register(
        "failures",
        "Failed attempts to bring a pod to its plane",
        shared.metrics.failures.clone(),
    );
    let proxy = flag(shared.feed.connected());
    registry.register("node_proxy_connected", "A node proxy takes the pods", proxy);
    let replicas: Gauge = Gauge::default();
    replicas.set(i64::try_from(shared.reports.replicas().len()).unwrap_or(i64::MAX));
    registry.register(
        "control_plane_connected",
        "Replicas of the control plane that reports reach",
        replicas,
    );
    registry.register("descriptors_kept", "Descriptors in the store", kept);
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "not encodable").into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.feed.is_open() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "pending: the pods of the node are not known yet\n",
        )
    }
}
