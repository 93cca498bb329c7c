//! The objects of a mesh of some size, written through the API as its own parts would write them: nothing behind
//! the pods runs.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::{Value, json};
use trefoil_api::names::{MESH_NAMESPACE, TOKEN_AUDIENCE, workload_uid};

/// Writes at a time.
const AT_ONCE: usize = 64;
/// Services in a namespace.
const IN_NAMESPACE: usize = 50;

/// How large a mesh is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Size {
    /// Services.
    #[arg(long, default_value_t = 1000)]
    pub services: usize,
    /// Pods, each behind one service.
    #[arg(long, default_value_t = 10_000)]
    pub pods: usize,
    /// Nodes, each with a proxy and an agent.
    #[arg(long, default_value_t = 200)]
    pub nodes: usize,
}

/// A pod of the mesh, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAt(pub usize);

impl Size {
    /// Names of the namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.services.div_ceil(IN_NAMESPACE)).map(|one| format!("shop-{one}"))
    }

    /// Namespace and name of a service.
    #[must_use]
    pub fn service(&self, service: usize) -> (String, String) {
        (
            format!("shop-{}", service / IN_NAMESPACE),
            format!("store-{service}"),
        )
    }

    /// The service that a pod is behind.
    #[must_use]
    pub fn service_of(&self, pod: PodAt) -> usize {
        pod.0 % self.services
    }

    /// The node that a pod runs on.
    #[must_use]
    pub fn node_of(&self, pod: PodAt) -> usize {
        (pod.0 + pod.0 / self.services * 7) % self.nodes
    }

    /// Namespace and name of a pod.
    #[must_use]
    pub fn pod(&self, pod: PodAt) -> (String, String) {
        let (namespace, service) = self.service(self.service_of(pod));
        (namespace, format!("{service}-{}", pod.0 / self.services))
    }

    /// The name of a pod as a resource.
    #[must_use]
    pub fn resource(&self, pod: PodAt) -> String {
        let (namespace, name) = self.pod(pod);
        workload_uid(&namespace, &name)
    }

    /// The pods behind a service.
    pub fn behind(&self, service: usize) -> impl Iterator<Item = PodAt> + use<> {
        (service..self.pods).step_by(self.services).map(PodAt)
    }
}

fn pod_address(pod: PodAt) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + u32::try_from(pod.0).unwrap_or(u32::MAX >> 8))
}

fn service_address(service: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + u32::try_from(service).unwrap_or_default())
}

/// Writes to the API.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    size: Size,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// Of a mesh of this size.
    #[must_use]
    pub fn new(client: Client, size: Size) -> Self {
        Self { client, size }
    }

    /// Makes all of them. Returns the uids of the pods, in their order.
    pub async fn make(&self) -> anyhow::Result<Vec<String>> {
        for namespace in self.size.namespaces() {
            let labels = json!({"trefoil.dev/dataplane-mode": "ambient"});
            self.create(
                "/api/v1/namespaces",
                &json!({"metadata": {"name": namespace, "labels": labels}}),
            )
            .await?;
            let path = format!("/apis/trefoil.dev/v1alpha1/namespaces/{namespace}/authorizationpolicies");
            let rules = json!([{"from": [{"namespaces": [namespace]}]}]);
            self.create(
                &path,
                &json!({"metadata": {"name": "own"}, "spec": {"action": "Allow", "rules": rules}}),
            )
            .await?;
        }
        self.each(
            0..self.size.nodes,
            |this, node| async move { this.node(node).await },
        )
        .await?;
        let made = self.each(0..self.size.pods, |this, pod| async move {
            this.make_pod(PodAt(pod)).await
        });
        let pods = made.await?;
        self.each(0..self.size.services, |this, service| async move {
            this.make_service(service).await
        })
        .await?;
        Ok(pods)
    }

    /// Does something many times, some at once; the results are in order.
    async fn each<Made, Making>(
        &self,
        all: std::ops::Range<usize>,
        make: impl Fn(Arc<Self>, usize) -> Making,
    ) -> anyhow::Result<Vec<Made>>
    where
        Making: Future<Output = anyhow::Result<Made>>,
    {
        let this = Arc::new(self.clone());
        let making = all.map(|one| make(this.clone(), one));
        stream::iter(making).buffered(AT_ONCE).try_collect().await
    }

    async fn node(&self, node: usize) -> anyhow::Result<()> {
        let labels = json!({
            "topology.kubernetes.io/region": "local",
            "topology.kubernetes.io/zone": format!("local-{}", node % 3),
        });
        let object = json!({"metadata": {"name": node_name(node), "labels": labels}});
        self.create("/api/v1/nodes", &object).await?;
        for account in ["trefoil-node", "trefoil-cni"] {
            let name = format!("{account}-{node}");
            self.pod_of_mesh(MESH_NAMESPACE, &name, account, node).await?;
        }
        Ok(())
    }

    /// A pod that only has a token.
    async fn pod_of_mesh(
        &self,
        namespace: &str,
        name: &str,
        account: &str,
        node: usize,
    ) -> anyhow::Result<()> {
        let spec = json!({
            "nodeName": node_name(node), "serviceAccountName": account,
            "containers": [{"name": "main", "image": "none"}],
        });
        self.create(
            &format!("/api/v1/namespaces/{namespace}/pods"),
            &json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await
        .map(drop)
    }

    async fn make_pod(&self, pod: PodAt) -> anyhow::Result<String> {
        let (namespace, name) = self.size.pod(pod);
        let (_, service) = self.size.service(self.size.service_of(pod));
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let made = self
            .create(
                &path,
                &json!({
                    "metadata": {
                        "name": name, "labels": {"app": service, "version": "v0"},
                        // As its agent wrote it: it holds until that agent has spoken to a control plane.
                        "annotations": {"trefoil.dev/redirection": "node"},
                    },
                    "spec": {
                        "nodeName": node_name(self.size.node_of(pod)), "serviceAccountName": service,
                        "containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 8080}]}],
                    },
                }),
            )
            .await?;
        let status = json!({"status": {
            "phase": "Running",
            "podIP": pod_address(pod), "podIPs": [{"ip": pod_address(pod)}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        self.patch(&format!("{path}/{name}/status"), &status).await?;
        let uid = made["metadata"]["uid"].as_str();
        Ok(uid.context("a pod without a uid")?.to_owned())
    }

    async fn make_service(&self, service: usize) -> anyhow::Result<()> {
        let (namespace, name) = self.size.service(service);
        let object = json!({"metadata": {"name": name}, "spec": {
            "clusterIP": service_address(service), "clusterIPs": [service_address(service)],
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        }});
        self.create(&format!("/api/v1/namespaces/{namespace}/services"), &object)
            .await?;
        let slice = self.slice(service, None);
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        self.create(&path, &slice).await.map(drop)
    }

    /// The slice of a service, with one pod that is not ready.
    fn slice(&self, service: usize, unready: Option<PodAt>) -> Value {
        let (namespace, name) = self.size.service(service);
        let endpoints = self.size.behind(service).map(|pod| {
            let (_, pod_name) = self.size.pod(pod);
            json!({
                "addresses": [pod_address(pod)],
                "conditions": {"ready": unready != Some(pod)},
                "nodeName": node_name(self.size.node_of(pod)),
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod_name},
            })
        });
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }

    /// Another version of a pod: one object, one resource.
    pub async fn change(&self, pod: PodAt, version: u64) -> anyhow::Result<()> {
        let (namespace, name) = self.size.pod(pod);
        let label = json!({"metadata": {"labels": {"version": format!("v{version}")}}});
        self.patch(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), &label)
            .await
    }

    /// Says in the slice of a pod's service whether the pod is ready: one object, one resource.
    pub async fn ready(&self, pod: PodAt, ready: bool) -> anyhow::Result<()> {
        let service = self.size.service_of(pod);
        let (namespace, name) = self.size.service(service);
        let slice = self.slice(service, (!ready).then_some(pod));
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}");
        self.patch(&path, &json!({"endpoints": slice["endpoints"]})).await
    }

    /// The token of the proxy (`trefoil-node`) or the agent (`trefoil-cni`) of a node.
    pub async fn token_of_node(&self, account: &str, node: usize) -> anyhow::Result<String> {
        self.token(MESH_NAMESPACE, account, &format!("{account}-{node}"))
            .await
    }

    /// The token of a client of its own in a namespace; its pod is made for it.
    pub async fn token_of_client(&self, namespace: &str, name: &str, node: usize) -> anyhow::Result<String> {
        self.pod_of_mesh(namespace, name, "default", node).await?;
        self.token(namespace, "default", name).await
    }

    async fn token(&self, namespace: &str, account: &str, pod: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let spec = json!({
            "audiences": [TOKEN_AUDIENCE], "expirationSeconds": 24 * 3600,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod},
        });
        let answer = self.create(&path, &json!({ "spec": spec })).await?;
        let token = answer["status"]["token"].as_str();
        Ok(token.context("an answer without a token")?.to_owned())
    }

    /// The roots of the mesh, PEM.
    pub async fn roots(&self) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{MESH_NAMESPACE}/configmaps/trefoil-ca-root");
        let request = http::Request::get(path).body(Vec::new())?;
        let map: Value = serde_json::from_str(&self.client.request_text(request).await?)?;
        let roots = map["data"]["root-cert.pem"].as_str();
        Ok(roots.context("no roots yet")?.to_owned())
    }

    async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(object)?)?;
        let answer = self.client.request_text(request).await;
        Ok(serde_json::from_str(
            &answer.with_context(|| format!("POST {path}"))?,
        )?)
    }

    async fn patch(&self, path: &str, patch: &Value) -> anyhow::Result<()> {
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(patch)?)?;
        let answer = self.client.request_text(request).await;
        answer.with_context(|| format!("PATCH {path}")).map(drop)
    }
}

/// The name of a node.
#[must_use]
pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}
