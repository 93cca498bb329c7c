//! `config POD`: what the pod's own plane, and its node's agent, hold about it.

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use serde::Serialize;
use serde_json::Value;

use crate::local::pod_name;
use crate::output::Format;
use crate::planes::{Plane, Planes, Role};

/// A pod as the mesh knows it.
#[derive(Debug, Serialize)]
pub(crate) struct PodConfig {
    /// NAMESPACE/POD.
    pub(crate) pod: String,
    /// Its Kubernetes uid.
    pub(crate) uid: String,
    /// Its node.
    pub(crate) node: String,
    /// The plane that the agent redirects it to: `node`, `sidecar` or `none`.
    pub(crate) redirection: String,
    /// What the agent says about it.
    pub(crate) remark: Option<String>,
    /// Its workload, as its plane knows it.
    pub(crate) workload: Value,
    /// Certificates of its identity.
    pub(crate) certificates: Vec<Value>,
    /// Policies that are in force for it.
    pub(crate) policies: Vec<Value>,
    /// Its connections.
    pub(crate) connections: Vec<Value>,
}

/// Asks the pod's agent and plane.
pub(crate) async fn gather(planes: &Planes, name: &str) -> anyhow::Result<PodConfig> {
    let (namespace, pod) = pod_name(name)?;
    let object = Api::<Pod>::namespaced(planes.client().clone(), &namespace)
        .get(&pod)
        .await;
    let object = object.with_context(|| format!("pod {name}"))?;
    let uid = object.uid().context("the pod has no uid")?;
    let node = object
        .spec
        .and_then(|spec| spec.node_name)
        .context("the pod is not on a node yet")?;
    let (redirection, remark) = redirection(planes, &node, &uid).await?;
    let mut config = PodConfig {
        pod: name.into(),
        uid,
        node,
        redirection,
        remark,
        workload: Value::Null,
        certificates: Vec::new(),
        policies: Vec::new(),
        connections: Vec::new(),
    };
    if let Some(plane) = plane_of(planes, &config).await? {
        fill(planes, &plane, &namespace, &pod, &mut config).await?;
    }
    Ok(config)
}

/// What the agent redirects a pod to, and what it says about that.
async fn redirection(planes: &Planes, node: &str, uid: &str) -> anyhow::Result<(String, Option<String>)> {
    let said = planes
        .on_node(Role::Agent, node)
        .await?
        .ask(planes, "status")
        .await?;
    let pods = said
        .get("pods")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let pod = pods
        .iter()
        .find(|pod| pod.get("uid").and_then(Value::as_str) == Some(uid));
    let text = |key: &str| pod.and_then(|pod| pod.get(key)?.as_str()).map(ToOwned::to_owned);
    Ok((text("plane").unwrap_or_else(|| "none".into()), text("remark")))
}

/// The process that is a pod's plane, if it has one.
pub(crate) async fn plane_of(planes: &Planes, config: &PodConfig) -> anyhow::Result<Option<Plane>> {
    match config.redirection.as_str() {
        "node" => planes.on_node(Role::NodeProxy, &config.node).await.map(Some),
        "sidecar" => {
            let mut all = planes.all().await?.into_iter();
            Ok(all.find(|plane| plane.role == Role::Sidecar && plane.of == config.pod))
        }
        _ => Ok(None),
    }
}

async fn fill(
    planes: &Planes,
    plane: &Plane,
    namespace: &str,
    pod: &str,
    config: &mut PodConfig,
) -> anyhow::Result<()> {
    let uid = trefoil_api::names::workload_uid(namespace, pod);
    let workloads = list(&plane.ask(planes, "workloads").await?, "workloads");
    config.workload = workloads
        .into_iter()
        .find(|one| text(one, "uid") == uid)
        .unwrap_or_default();
    let identity = text(&config.workload, "identity").to_owned();
    let named: Vec<&str> = config
        .workload
        .get("policies")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    config.policies = list(&plane.ask(planes, "policies").await?, "policies")
        .into_iter()
        .filter(|policy| match text(policy, "scope") {
            "mesh" => true,
            "namespace" => text(policy, "namespace") == namespace,
            _ => named.contains(&text(policy, "name")),
        })
        .collect();
    config.certificates = list(&plane.ask(planes, "certificates").await?, "certificates")
        .into_iter()
        .filter(|one| text(one, "identity") == identity)
        .collect();
    config.connections = list(&plane.ask(planes, "connections").await?, "connections")
        .into_iter()
        .filter(|one| text(one, "pod") == config.uid)
        .collect();
    Ok(())
}

/// A list in an answer.
pub(crate) fn list(answer: &Value, key: &str) -> Vec<Value> {
    answer
        .get(key)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// A text in an object, or nothing.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `config POD`.
pub(crate) async fn print(planes: &Planes, name: &str, format: Format) -> anyhow::Result<()> {
    let config = gather(planes, name).await?;
    format.print(&config, || serde_saphyr::to_string(&config).unwrap_or_default())
}
