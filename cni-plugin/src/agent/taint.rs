//! The startup taint of nodes: where kubelets register with it, no pod is put on a node before its agent can put
//! pods on their planes. The agent lifts it once, when it can, and never lays it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::conflist;
use super::shared::Shared;

#[cfg(test)]
mod tests;

/// The key of the taint.
const KEY: &str = "trefoil.dev/agent-not-ready";
/// How often it is looked whether the agent can.
const LOOK: Duration = Duration::from_millis(200);
/// How soon a failure is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Waits until pods of the node are put on their planes, then lifts the taint.
pub(super) async fn lift(shared: Arc<Shared>) {
    if shared.options.cni_conf_dir.is_none() {
        return;
    }
    let installed = || {
        let folder = shared.options.cni_conf_dir.as_deref();
        folder.is_some_and(conflist::is_installed)
    };
    while !(shared.feed.is_open() && installed()) {
        tokio::time::sleep(LOOK).await;
    }
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let mut said = false;
    loop {
        match try_lift(&nodes, &shared.options.node).await {
            Ok(false) => return,
            Ok(true) => return tracing::info!("the node's startup taint is lifted"),
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "it is not known whether the node has a startup taint, or it is not lifted");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Says whether there was one.
async fn try_lift(nodes: &Api<Node>, name: &str) -> Result<bool, kube::Error> {
    let node = nodes.get(name).await?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let Some(rest) = without(taints) else {
        return Ok(false);
    };
    // Other people's taints are written as they were read: only if none has come or gone meanwhile.
    let patch = json!({
        "metadata": {"resourceVersion": node.metadata.resource_version},
        "spec": {"taints": rest},
    });
    nodes
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(true)
}

/// The other taints; nothing if ours is not among them.
fn without(taints: Vec<Taint>) -> Option<Vec<Taint>> {
    let (ours, rest): (Vec<Taint>, Vec<Taint>) = taints.into_iter().partition(|taint| taint.key == KEY);
    (!ours.is_empty()).then_some(rest)
}
