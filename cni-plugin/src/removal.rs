//! The cluster's part of removing the mesh, in an order in which nothing is cut that need not be: no new sidecars;
//! then every agent takes its pods out of the mesh while the control plane still tells their peers; then the control
//! plane ends, and what it made outside the mesh's own namespace goes. What the chart made is the chart's to remove.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;
use trefoil_api::names::{MANAGER, MESH_CONFIG, MESH_NAMESPACE, ROOT_CONFIG_MAP, annotation, label};

#[cfg(test)]
mod tests;

/// The name of both webhook configurations.
const WEBHOOKS: &str = "trefoil";
const CONTROL_PLANE: &str = "trefoil-control-plane";
/// How often it is looked how far others are.
const LOOK: Duration = Duration::from_millis(500);

/// Why the mesh is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The API server refused, or did not answer.
    #[error("API server: {0}")]
    Api(#[from] kube::Error),
    /// Agents did not answer.
    #[error(
        "agents that have not undone redirection in time: {0}; see their logs. If their nodes are gone for good, remove \
         the mesh without this step (helm uninstall --no-hooks): pods of other nodes are out of it already"
    )]
    Unanswered(String),
    /// The control plane stays.
    #[error("the control plane does not end: {0}")]
    ControlPlane(String),
}

/// Removes the mesh from a cluster, for at most `limit`; prints each step.
pub async fn run(client: Client, limit: Duration) -> Result<(), RemovalError> {
    let deadline = Instant::now() + limit;
    delete::<MutatingWebhookConfiguration>(&Api::all(client.clone()), WEBHOOKS).await?;
    delete::<ValidatingWebhookConfiguration>(&Api::all(client.clone()), WEBHOOKS).await?;
    println!("no more sidecars are injected");
    let answered = agents(&client, deadline).await?;
    println!("{answered} agents have undone redirection");
    end_control_plane(&client, deadline).await?;
    println!("the control plane has ended");
    let mine = ListParams::default().labels(&format!("{}={MANAGER}", label::MANAGED_BY));
    let mut parts = delete_all::<Deployment>(&client, &mine).await?;
    parts += delete_all::<Service>(&client, &mine).await?;
    parts += delete_all::<ServiceAccount>(&client, &mine).await?;
    parts += delete_all::<PodDisruptionBudget>(&client, &mine).await?;
    let roots = ListParams::default().fields(&format!("metadata.name={ROOT_CONFIG_MAP}"));
    let roots = delete_all::<ConfigMap>(&client, &roots).await?;
    println!("{parts} parts of waypoints and {roots} ConfigMaps with roots are removed");
    Ok(())
}

/// Asks all agents, and waits until all have answered; how many did.
async fn agents(client: &Client, deadline: Instant) -> Result<usize, RemovalError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), MESH_NAMESPACE);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let request = format!("requested-{}", now.unwrap_or_default().as_millis());
    let patch = json!({"metadata": {"annotations": {annotation::REMOVAL: request}}});
    maps.patch_metadata(MESH_CONFIG, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), MESH_NAMESPACE);
    let agents = ListParams::default().labels("app=trefoil-cni");
    loop {
        let listed = pods.list(&agents).await?.items;
        let missing = unanswered(&listed, &request);
        if missing.is_empty() {
            return Ok(listed.len());
        }
        if Instant::now() >= deadline {
            return Err(RemovalError::Unanswered(missing.join(", ")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The agents' pods that have not met a request, and their nodes.
fn unanswered(agents: &[Pod], request: &str) -> Vec<String> {
    let met = |pod: &&Pod| pod.annotations().get(annotation::REMOVAL).map(String::as_str) == Some(request);
    let missing = agents.iter().filter(|pod| !met(pod));
    missing
        .map(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            format!("{} on {}", pod.name_any(), node.unwrap_or("no node"))
        })
        .collect()
}

/// It would make again what is removed after it.
async fn end_control_plane(client: &Client, deadline: Instant) -> Result<(), RemovalError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), MESH_NAMESPACE);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let scaled = deployments
        .patch_scale(CONTROL_PLANE, &PatchParams::default(), &none)
        .await;
    absent_is_fine(scaled.map(drop))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), MESH_NAMESPACE);
    let replicas = ListParams::default().labels(&format!("app={CONTROL_PLANE}"));
    loop {
        let listed = pods.list(&replicas).await?.items;
        if listed.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let names: Vec<String> = listed.iter().map(ResourceExt::name_any).collect();
            return Err(RemovalError::ControlPlane(names.join(", ")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn delete_all<K>(client: &Client, which: &ListParams) -> Result<usize, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let listed = Api::<K>::all(client.clone()).list(which).await?.items;
    for object in &listed {
        let namespace = object.namespace().unwrap_or_default();
        delete::<K>(&Api::namespaced(client.clone(), &namespace), &object.name_any()).await?;
    }
    Ok(listed.len())
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    absent_is_fine(api.delete(name, &DeleteParams::background()).await.map(drop))
}

fn absent_is_fine(outcome: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
