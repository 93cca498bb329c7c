//! The HTTP server for the CNI plugin, on a socket that only root can open. An answer of 200 to `/add` means
//! that the pod is redirected as it is to be; anything else means that it must not start yet.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use trefoil_api::proto::trefoil::v1::Plane;

use super::observe::{Observation, Observations};
use super::shared::Shared;
use crate::attachment::Attachment;
use crate::kernel;
use crate::namespace::Namespace;

/// How long a pod may take to get on its plane before its runtime is told to try again.
const PATIENCE: Duration = Duration::from_secs(30);

type Answer = Result<&'static str, (StatusCode, String)>;

#[derive(Clone)]
struct Requests {
    shared: Arc<Shared>,
    observations: Observations,
}

#[derive(Deserialize)]
struct ValidContainers {
    valid: Vec<String>,
}

/// Routes of the plugin's socket.
pub(crate) fn routes(shared: Arc<Shared>, observations: Observations) -> Router {
    Router::new()
        .route("/add", post(add))
        .route("/del", post(del))
        .route("/check", post(check))
        .route("/gc", post(gc))
        .route("/status", get(async || "ok"))
        .with_state(Requests { shared, observations })
}

/// Listens on a Unix socket that only its owner can open; one left by a predecessor is replaced.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn add(State(requests): State<Requests>, Json(attachment): Json<Attachment>) -> Answer {
    let name = format!("{}/{}", attachment.namespace, attachment.name);
    let added = tokio::time::timeout(PATIENCE, put_on_plane(&requests, attachment)).await;
    match added {
        Ok(Ok(plane)) => {
            tracing::debug!(pod = %name, ?plane, "attached");
            Ok("redirected as it is to be")
        }
        Ok(Err(reason)) => Err(later(format!("{name}: {reason}"))),
        Err(_) => Err(later(format!("{name}: not on its plane in time"))),
    }
}

async fn put_on_plane(requests: &Requests, mut attachment: Attachment) -> Result<Plane, String> {
    let shared = &requests.shared;
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &attachment.namespace);
    let pod = api
        .get(&attachment.name)
        .await
        .map_err(|error| format!("API server: {error}"))?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if !attachment.uid.is_empty() && attachment.uid != uid {
        return Err(format!("the pod of this name is another, {uid}"));
    }
    attachment.uid = uid;
    let network = Namespace::open_named(&attachment.netns, &shared.options.netns_root)
        .map_err(|error| format!("{}: {error}", attachment.netns.display()))?;
    attachment.identity = Some(network.identity());
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone());
    attachment.service_account = account.unwrap_or_else(|| "default".into());
    shared
        .state
        .attach(&attachment)
        .map_err(|error| format!("state directory: {error}"))?;

    let container_id = attachment.container_id.clone();
    let (reply, standing) = oneshot::channel();
    let observation = Observation::Attached {
        pod: Box::new(pod),
        attachment,
        reply,
    };
    let sent = requests.observations.send(observation).await;
    sent.map_err(|_| "the agent is ending".to_string())?;
    let mut status = standing.await.map_err(|_| "the pod has ended".to_string())?;
    let patience = PATIENCE - Duration::from_secs(5);
    let settled = status.wait_for(|status| status.settled && status.container_id == container_id);
    if let Ok(settled) = tokio::time::timeout(patience, settled).await {
        let settled = settled.map_err(|_| "the pod has ended".to_string())?;
        return Ok(settled.plane.unwrap_or(Plane::None));
    }
    let remark = status.borrow().remark.clone();
    Err(remark.unwrap_or_else(|| "not on its plane in time".into()))
}

async fn del(State(requests): State<Requests>, Json(attachment): Json<Attachment>) -> Answer {
    let observation = Observation::Detached {
        uid: attachment.uid,
        container_id: attachment.container_id,
    };
    requests.observations.send(observation).await.ok();
    Ok("forgotten")
}

/// Compares what redirects the pod with what it settled on.
async fn check(State(requests): State<Requests>, Json(attachment): Json<Attachment>) -> Answer {
    let standing = requests.shared.standing();
    let of_pod = standing.iter().find(|(uid, (namespace, name, _))| {
        **uid == attachment.uid || (*namespace == attachment.namespace && *name == attachment.name)
    });
    let Some((_, (_, _, status))) = of_pod else {
        return Err(later("the pod is not known".into()));
    };
    let status = status.borrow().clone();
    let network = Namespace::open_named(&attachment.netns, &requests.shared.options.netns_root)
        .map_err(|error| later(error.to_string()))?;
    let now = kernel::inspect(&network)
        .await
        .map_err(|error| later(error.to_string()))?;
    if status.plane == Some(now.plane) {
        return Ok("as it should be");
    }
    let should = status.plane.map_or("not known", super::pod::plane_name);
    let is = super::pod::plane_name(now.plane);
    Err(later(format!("redirected to {is}, should be {should}")))
}

async fn gc(State(requests): State<Requests>, Json(valid): Json<ValidContainers>) -> Answer {
    let observation = Observation::ValidContainers(valid.valid);
    requests.observations.send(observation).await.ok();
    Ok("forgotten")
}

fn later(reason: String) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, reason)
}
