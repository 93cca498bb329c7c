//! The admin interface: what the agent knows and does, over a Unix socket of its own.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::pod::plane_name;
use super::shared::Shared;
use crate::log::Level;

#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    level: Level,
    ending: CancellationToken,
}

/// Routes of the admin socket.
pub(crate) fn routes(shared: Arc<Shared>, level: Level, ending: CancellationToken) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/workloads", get(status))
        .route("/config", get(config))
        .route("/log-level", get(show_level).put(set_level))
        .route("/drain", post(drain))
        .with_state(Admin {
            shared,
            level,
            ending,
        })
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let shared = &admin.shared;
    let pods: Vec<Value> = shared
        .standing()
        .iter()
        .map(|(uid, (namespace, name, status))| {
            let status = status.borrow();
            json!({
                "uid": uid,
                "namespace": namespace,
                "name": name,
                "plane": status.plane.map(plane_name),
                "settled": status.settled,
                "remark": status.remark,
            })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": shared.options.node,
        "nodeProxyConnected": shared.feed.connected(),
        "controlPlaneConnected": !shared.reports.replicas().is_empty(),
        "controlPlaneReplicas": shared.reports.replicas(),
        "controlPlaneSeconds": shared.reports.connected_or_away().as_secs(),
        "descriptorsKept": shared.store.len(),
        "pods": pods,
    }))
}

async fn config(State(admin): State<Admin>) -> Json<Value> {
    let options = &admin.shared.options;
    Json(json!({
        "node": options.node,
        "runDir": options.run_dir,
        "stateDir": options.state_dir,
        "controlPlane": options.control_plane,
        "kubeletUid": options.kubelet_uid,
        "cniConfDir": options.cni_conf_dir,
    }))
}

async fn show_level(State(admin): State<Admin>) -> Json<Value> {
    Json(json!({ "level": admin.level.get() }))
}

async fn set_level(State(admin): State<Admin>, body: String) -> Result<Json<Value>, (StatusCode, String)> {
    let text = body.trim().trim_matches('"');
    admin
        .level
        .set(text)
        .map_err(|error| (StatusCode::BAD_REQUEST, error))?;
    Ok(Json(json!({ "level": admin.level.get() })))
}

async fn drain(State(admin): State<Admin>) -> Json<Value> {
    admin.ending.cancel();
    Json(json!({ "draining": true }))
}
