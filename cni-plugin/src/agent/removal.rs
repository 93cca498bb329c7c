//! The node's part of removing the mesh: once every pod has left it, the host's rules and the plugin go, and the
//! agent's pod says so. Only a request does this, never the agent's own end: an agent that is restarted, upgraded
//! or evicted leaves redirection as it is, since its pods stay in the mesh.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use trefoil_api::names::{MESH_NAMESPACE, annotation};

use super::conflist::{self, InstallError};
use super::shared::Shared;
use crate::kernel::{self, KernelError};
use crate::redirection::host::HOST_TABLE;

/// How often it is looked whether the pods have left.
const LOOK: Duration = Duration::from_millis(500);

/// Why the mesh is not gone from the node yet.
#[derive(Debug, thiserror::Error)]
enum RemovalError {
    #[error("pods that have not left: {0}")]
    Pods(String),
    #[error("the host's rules: {0}")]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Plugin(#[from] InstallError),
    #[error("API server: {0}")]
    Api(#[from] kube::Error),
}

/// Meets each request that comes.
pub(super) async fn run(shared: Arc<Shared>, mut removal: watch::Receiver<Option<String>>) {
    loop {
        let request = match removal.wait_for(Option::is_some).await {
            Ok(request) => request.clone().unwrap_or_default(),
            Err(_) => return,
        };
        tracing::info!("the mesh is being removed");
        let changed = tokio::select! {
            () = meet(&shared, &request) => removal.changed().await,
            changed = removal.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn meet(shared: &Shared, request: &str) {
    let mut said = String::new();
    while let Err(error) = try_meet(shared, request).await {
        if error.to_string() != said {
            said = error.to_string();
            tracing::info!(%error, "not removed yet");
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::info!("the mesh is gone from the node");
}

async fn try_meet(shared: &Shared, request: &str) -> Result<(), RemovalError> {
    let stay: Vec<String> = shared
        .standing()
        .values()
        .filter(|(_, _, status)| !status.borrow().left)
        .map(|(namespace, name, _)| format!("{namespace}/{name}"))
        .collect();
    // Before they are listed, there may be some that are not known.
    if !shared.feed.is_open() || !stay.is_empty() {
        return Err(RemovalError::Pods(stay.join(", ")));
    }
    kernel::remove(&shared.host, HOST_TABLE).await?;
    let options = &shared.options;
    if let (Some(binaries), Some(folder)) = (&options.cni_bin_dir, &options.cni_conf_dir) {
        conflist::uninstall(binaries, folder)?;
    }
    if let Some(pod) = &options.pod {
        let pods: Api<Pod> = Api::namespaced(shared.client.clone(), MESH_NAMESPACE);
        let patch = json!({"metadata": {"annotations": {annotation::REMOVAL: request}}});
        let parameters = PatchParams::default();
        pods.patch_metadata(pod, &parameters, &Patch::Merge(patch))
            .await?;
    }
    Ok(())
}
