//! The objects that a cluster's own parts would write: nodes, the mesh's pods, tokens. Nothing of the
//! network is made here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node as NodeObject, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use trefoil_api::names::{MESH_NAMESPACE, ROOT_CONFIG_MAP, ROOT_KEY, TOKEN_AUDIENCE, label};

use super::mesh::Node;

/// How long tokens live.
pub(crate) const TOKEN_SECONDS: i64 = 3600;

/// Creates an object that may be there.
pub(crate) async fn create<K>(api: &Api<K>, object: &K) -> anyhow::Result<bool>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes an object that may be gone.
pub(crate) async fn delete<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::default().grace_period(0)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A namespace, in a mode if one is given.
pub async fn create_namespace(client: &Client, name: &str, mode: Option<&str>) -> anyhow::Result<bool> {
    let labels = mode.map(|mode| BTreeMap::from([(label::DATAPLANE_MODE.to_owned(), mode.to_owned())]));
    let metadata = ObjectMeta {
        name: Some(name.into()),
        labels,
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    create(&Api::all(client.clone()), &namespace).await
}

/// A service account.
pub(crate) async fn create_service_account(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<()> {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace.into()),
        ..ObjectMeta::default()
    };
    let account = ServiceAccount {
        metadata,
        ..ServiceAccount::default()
    };
    create(&Api::namespaced(client.clone(), namespace), &account)
        .await
        .map(drop)
}

/// The Node object of a node: one zone each, one region.
pub(crate) async fn create_node(client: &Client, node: Node) -> anyhow::Result<()> {
    let name = node.name();
    let labels = json!({
        "kubernetes.io/hostname": name,
        label::REGION: "local",
        label::ZONE: format!("local-{}", node.0),
    });
    let object: NodeObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": labels },
        "spec": { "podCIDRs": [format!("{}/24", node.pod_v4(0)), format!("{}/64", node.pod_v6(0))] },
    }))?;
    let api = Api::<NodeObject>::all(client.clone());
    create(&api, &object).await?;
    let status = json!({ "status": {
        "addresses": [
            { "type": "InternalIP", "address": node.address_v4() },
            { "type": "InternalIP", "address": node.address_v6() },
            { "type": "Hostname", "address": name },
        ],
        "conditions": [{ "type": "Ready", "status": "True" }],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

/// A pod of the mesh itself, on a node; its uid.
pub(crate) async fn create_mesh_pod(
    client: &Client,
    name: &str,
    account: &str,
    node: Node,
) -> anyhow::Result<String> {
    create_service_account(client, MESH_NAMESPACE, account).await?;
    let object: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": MESH_NAMESPACE, "labels": { "app": account } },
        "spec": {
            "nodeName": node.name(), "hostNetwork": true, "serviceAccountName": account,
            "containers": [{ "name": account, "image": account }],
        },
    }))?;
    let api = Api::<Pod>::namespaced(client.clone(), MESH_NAMESPACE);
    create(&api, &object).await?;
    let status = json!({ "status": {
        "phase": "Running",
        "hostIP": node.address_v4(), "podIP": node.address_v4(),
        "podIPs": [{ "ip": node.address_v4() }, { "ip": node.address_v6() }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    }});
    let pod = api
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    pod.metadata.uid.context("the API server gave a pod no uid")
}

/// Whose token it is, and which pod's.
#[derive(Clone, Debug)]
pub(crate) struct TokenOwner {
    /// Namespace of the account and the pod.
    pub(crate) namespace: String,
    /// The account.
    pub(crate) account: String,
    /// The pod's name.
    pub(crate) pod: String,
    /// The pod's uid.
    pub(crate) uid: String,
}

/// A token for the control plane (or, without an audience, for the API server), bound to a pod.
async fn token(client: &Client, owner: &TokenOwner, audience: Option<&str>) -> anyhow::Result<String> {
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.map(Into::into).into_iter().collect()),
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(owner.pod.clone()),
                uid: Some(owner.uid.clone()),
            }),
        }),
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &owner.namespace);
    let answer = accounts
        .create_token_request(&owner.account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("asking for a token of {}/{}", owner.namespace, owner.account))?;
    answer
        .status
        .and_then(|status| status.token)
        .context("the API server gave no token")
}

/// Writes a token for the control plane to a file, for `user` alone.
pub(crate) async fn write_token(
    client: &Client,
    owner: &TokenOwner,
    path: &Path,
    user: u32,
) -> anyhow::Result<()> {
    write_private(path, &token(client, owner, Some(TOKEN_AUDIENCE)).await?, user)
}

/// Writes a kubeconfig with a token file beside it, for a process of the mesh.
pub(crate) async fn write_api_token(client: &Client, owner: &TokenOwner, path: &Path) -> anyhow::Result<()> {
    write_private(path, &token(client, owner, None).await?, 0)
}

/// Replaces a file that only `user` may read, in one step.
pub(crate) fn write_private(path: &Path, content: &str, user: u32) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        std::io::Write::write_all(&mut file, content.as_bytes())?;
        chown(&new, Some(user), Some(user))?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("writing {}", path.display()))
}

/// The root of the mesh's certificates, once the control plane has published it.
pub(crate) async fn root_certificate(client: &Client) -> anyhow::Result<String> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), MESH_NAMESPACE);
    let published = async {
        loop {
            let map = api.get_opt(ROOT_CONFIG_MAP).await?;
            if let Some(root) = map
                .and_then(|map| map.data)
                .and_then(|mut data| data.remove(ROOT_KEY))
            {
                return anyhow::Ok(root);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), published)
        .await
        .with_context(|| {
            format!("the control plane has not published ConfigMap {MESH_NAMESPACE}/{ROOT_CONFIG_MAP}")
        })?
}
