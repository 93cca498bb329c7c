//! What a cluster needs for waypoints, and what it says of their pods: only read here.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use trefoil_api::names::{GATEWAY_CONTROLLER, WAYPOINT_CLASS, label};

use crate::kinds::Kind;

#[cfg(test)]
mod tests;

/// That there are Gateways, and, where they are to be made, somebody who makes them.
pub(super) async fn met(client: &Client, to_be_made: bool) -> anyhow::Result<()> {
    let classes = Kind::named("gatewayclasses")?.api(client, None);
    let classes = match classes.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => anyhow::bail!(
            "this cluster has no Gateway API, by which waypoints are asked for: install its standard definitions (`kubectl apply --server-side -f standard-install.yaml` of a release from v1.1 on) and GatewayClass {WAYPOINT_CLASS}, which `helm upgrade` adds; the control plane notices within half a minute"
        ),
        classes => classes?,
    };
    let ours = |class: &kube::api::DynamicObject| {
        class.name_any() == WAYPOINT_CLASS && class.data["spec"]["controllerName"] == GATEWAY_CONTROLLER
    };
    // On one machine the mesh itself makes the pods, and asks for no class.
    anyhow::ensure!(
        !to_be_made || classes.iter().any(ours) || !has_deployments(client).await?,
        "there is no GatewayClass {WAYPOINT_CLASS} of controller {GATEWAY_CONTROLLER}, so that nobody would make the waypoint: `helm upgrade` of the mesh's chart adds it"
    );
    Ok(())
}

async fn has_deployments(client: &Client) -> anyhow::Result<bool> {
    let groups = client.list_api_groups().await?.groups;
    Ok(groups.iter().any(|group| group.name == "apps"))
}

/// How many pods waypoints are to have by whoever scales them, by namespace and name; none where there are no
/// Deployments, or not for us to see.
pub(super) async fn scaled(
    client: &Client,
    namespace: Option<&str>,
) -> anyhow::Result<BTreeMap<(String, String), u32>> {
    let deployments: Api<Deployment> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let found = match deployments
        .list(&ListParams::default().labels(label::MANAGED_BY))
        .await
    {
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => return Ok(BTreeMap::new()),
        found => found?,
    };
    let replicas = found.into_iter().filter_map(|one| {
        let key = (one.namespace()?, one.name_any());
        let replicas = one.spec?.replicas.unwrap_or(1);
        Some((key, u32::try_from(replicas).ok()?))
    });
    Ok(replicas.collect())
}

/// What keeps a waypoint's pods from being ready, as far as the cluster says.
pub(super) async fn complaints(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let of_waypoint = ListParams::default().labels(&format!("{}={name}", label::GATEWAY_NAME));
    let pods = Api::<Pod>::namespaced(client.clone(), namespace)
        .list(&of_waypoint)
        .await?;
    Ok(pods.iter().flat_map(complaints_of).collect())
}

fn complaints_of(pod: &Pod) -> Vec<String> {
    let status = pod.status.iter();
    let unscheduled = status
        .clone()
        .flat_map(|status| status.conditions.iter().flatten());
    let unscheduled = unscheduled
        .filter(|one| one.type_ == "PodScheduled" && one.status == "False")
        .filter_map(|one| one.message.clone());
    let waiting = status.flat_map(|status| status.container_statuses.iter().flatten());
    let waiting = waiting.filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let words = [&waiting.reason, &waiting.message].into_iter().flatten();
        Some(words.map(String::as_str).collect::<Vec<_>>().join(": "))
    });
    let said = unscheduled.chain(waiting);
    said.map(|said| format!("pod {}: {said}", pod.name_any()))
        .collect()
}
