//! What operators see: metrics and readiness on a port, everything else on a Unix socket.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trefoil_api::proto::istio::security::Authorization;
use trefoil_api::proto::istio::workload::{Address, address};

use super::certificates::Signing;
use super::xds::Hub;
use crate::ca::Keeper;
use crate::objects::Objects;
use trefoil_control_plane_index::snapshot::ResourceKind;

/// What is shown.
#[derive(Clone)]
pub struct Admin {
    /// Flags, as they were understood.
    pub flags: Value,
    /// Clients and resources.
    pub hub: Arc<Hub>,
    /// Policies and configuration.
    pub objects: Objects,
    /// The certificate authority.
    pub keeper: Keeper,
    /// The latest signings.
    pub signings: Arc<Mutex<VecDeque<Signing>>>,
    /// Metrics.
    pub registry: Arc<Registry>,
    /// Changes what is logged.
    pub log_level: LogLevel,
    /// Ends the process gracefully.
    pub drain: CancellationToken,
}

/// Puts log directives into force, or says why not.
pub type ChangeLog = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Reads and changes what is logged.
#[derive(Clone)]
pub struct LogLevel {
    /// The present directives.
    pub current: Arc<Mutex<String>>,
    /// Puts new directives into force.
    pub change: Arc<ChangeLog>,
}

/// Readiness and metrics.
pub fn public(admin: Admin) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .route("/healthz/live", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// Everything.
pub fn private(admin: Admin) -> Router {
    let more = Router::new()
        .route("/status", get(status))
        .route("/config", get(config))
        .route("/workloads", get(workloads))
        .route("/policies", get(policies))
        .route("/connections", get(connections))
        .route("/certificates", get(certificates))
        .route("/log-level", get(log_level).put(set_log_level))
        .route("/drain", post(drain))
        .with_state(admin.clone());
    public(admin).merge(more)
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.drain.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    if admin.hub.is_synced() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let awaited = admin.objects.overview().borrow().awaited.join(", ");
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: waiting for lists of {awaited}\n"),
    )
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &admin.registry);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, kind)], text)
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.hub.snapshot();
    let overview = admin.objects.overview().borrow().clone();
    let clients = admin.hub.summaries();
    let refusals: Vec<Value> = clients
        .iter()
        .flat_map(|client| {
            client.types.iter().filter_map(|one| {
                let refusal = one.summary.refusal.as_ref()?;
                Some(json!({"client": client.who.client, "type": one.summary.type_url, "refusal": refusal}))
            })
        })
        .collect();
    let problems = overview.problems();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": admin.hub.is_synced(),
        "healthy": problems.is_empty(),
        "problems": problems,
        "overview": &*overview,
        "clients": clients.len(),
        "refusals": refusals,
        "resources": ResourceKind::ALL
            .into_iter()
            .map(|kind| (kind.label(), snapshot.of(kind).len()))
            .collect::<BTreeMap<_, _>>(),
        "malformed": overview
            .reports
            .iter()
            .flat_map(|report| {
                report.statements.iter().filter(|one| !one.holds).map(|one| {
                    json!({"policy": report.key.to_string(), "condition": one.kind, "reason": one.reason, "message": one.message})
                })
            })
            .collect::<Vec<_>>(),
    }))
}

async fn config(State(admin): State<Admin>) -> Json<Value> {
    let mesh = admin.objects.mesh().borrow().clone();
    Json(json!({"flags": admin.flags, "trustDomain": mesh.trust_domain, "mesh": mesh.config}))
}

async fn workloads(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.hub.snapshot();
    let mut workloads = Vec::new();
    let mut services = Vec::new();
    for encoded in snapshot.of(ResourceKind::Address).iter() {
        let shown = |more: Value| json!({"name": &*encoded.name, "version": encoded.version.to_string(), "aliases": encoded.aliases, "resource": more});
        match encoded.decode::<Address>().map(|address| address.r#type) {
            Ok(Some(address::Type::Workload(one))) => workloads.push(shown(json!({
                "namespace": one.namespace, "name": one.name, "node": one.node,
                "serviceAccount": one.service_account, "hbone": one.tunnel_protocol == 1,
                "healthy": one.status == 0, "policies": one.authorization_policies,
                "services": one.services.keys().collect::<std::collections::BTreeSet<_>>(),
            }))),
            Ok(Some(address::Type::Service(one))) => services.push(shown(json!({
                "hostname": one.hostname,
                "ports": one.ports.iter().map(|port| (port.service_port, port.target_port)).collect::<BTreeMap<_, _>>(),
            }))),
            _ => {}
        }
    }
    Json(json!({"workloads": workloads, "services": services}))
}

async fn policies(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.hub.snapshot();
    let all = snapshot.of(ResourceKind::Authorization).iter();
    let served: Vec<Value> = all
        .map(|encoded| {
            let text = encoded
                .decode::<Authorization>()
                .map(|policy| format!("{policy:?}"));
            json!({"name": &*encoded.name, "version": encoded.version.to_string(), "policy": text.unwrap_or_default()})
        })
        .collect();
    let overview = admin.objects.overview().borrow().clone();
    let reports = overview.reports.iter().map(|report| {
        let statements = report
            .statements
            .iter()
            .map(|one| json!({"type": one.kind, "holds": one.holds, "reason": one.reason, "message": one.message}));
        json!({"kind": format!("{:?}", report.kind), "policy": report.key.to_string(), "generation": report.generation, "conditions": statements.collect::<Vec<_>>()})
    });
    Json(json!({"served": served, "objects": reports.collect::<Vec<_>>()}))
}

async fn connections(State(admin): State<Admin>) -> Json<Value> {
    Json(json!({"clients": admin.hub.summaries()}))
}

async fn certificates(State(admin): State<Admin>) -> Json<Value> {
    let authority = admin.keeper.authority();
    let signings = admin
        .signings
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Json(json!({
        "authority": {
            "notAfter": authority.not_after().to_string(),
            "notAfterSeconds": authority.not_after().unix_timestamp(),
            "signer": authority.signer(),
            "roots": authority.roots(),
        },
        "signed": signings,
    }))
}

async fn log_level(State(admin): State<Admin>) -> Json<Value> {
    let current = admin
        .log_level
        .current
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Json(json!({"level": current}))
}

async fn set_log_level(State(admin): State<Admin>, body: String) -> impl IntoResponse {
    let wanted = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|value| value["level"].as_str().map(str::to_owned))
        .unwrap_or_else(|| body.trim().to_owned());
    match (admin.log_level.change)(&wanted) {
        Ok(()) => {
            let mut current = admin
                .log_level
                .current
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            current.clone_from(&wanted);
            (StatusCode::OK, Json(json!({"level": wanted})))
        }
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({"error": error}))),
    }
}

async fn drain(State(admin): State<Admin>) -> Json<Value> {
    admin.drain.cancel();
    Json(json!({"draining": true}))
}
