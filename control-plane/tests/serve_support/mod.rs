//! A control plane over an embedded API, each on loopback ports of its own, and clients of it over real TLS.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test file uses what it needs"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use trefoil_control_plane::assemble::{ControlPlane, Options};
use trefoil_control_plane::deployment::Settings;
use trefoil_control_plane::serve::admin::LogLevel;
use trefoil_embedded_api::{self as embedded, Embedded, EmbeddedConfig};

#[allow(clippy::all, clippy::pedantic, unused)]
pub mod stubs {
    include!(concat!(env!("OUT_DIR"), "/clients/stubs.rs"));
}

use stubs::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

pub const NAME: &str = "trefoil-control-plane.trefoil-system.svc";
/// Longer than anything that is waited for takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A mesh's control plane.
pub struct Mesh {
    pub control_plane: ControlPlane,
    pub client: Client,
    embedded: Embedded,
    folder: tempfile::TempDir,
}

async fn client(kubeconfig: &Value) -> Client {
    let kubeconfig = serde_json::from_value(kubeconfig.clone()).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn embedded_in(folder: &Path) -> Embedded {
    embedded::start(EmbeddedConfig {
        store_dir: folder.join("store"),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        kubeconfig_out: None,
        // Nothing is refused at the door: what comes of it then is what is tested.
        validate: Arc::new(|_, _, _| Ok(())),
    })
    .await
    .unwrap()
}

/// Two control planes that start at the same time over an empty store.
pub struct Replicas {
    pub control_planes: [ControlPlane; 2],
    pub client: Client,
    embedded: Embedded,
    _folder: tempfile::TempDir,
}

impl Replicas {
    pub async fn start() -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let embedded = embedded_in(folder.path()).await;
        let start = async |name: &str| {
            let own = client(embedded.kubeconfig()).await;
            ControlPlane::start(own, options(&folder.path().join(name)))
                .await
                .unwrap()
        };
        let (one, other) = within(futures::future::join(start("one"), start("other"))).await;
        Self {
            control_planes: [one, other],
            client: client(embedded.admin_kubeconfig()).await,
            embedded,
            _folder: folder,
        }
    }

    pub async fn stop(self) {
        for control_plane in self.control_planes {
            control_plane.stop(Duration::from_secs(5)).await;
        }
        self.embedded.shutdown().await;
    }
}

impl Mesh {
    pub async fn start() -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(folder: tempfile::TempDir) -> Self {
        let embedded = embedded_in(folder.path()).await;
        let own = client(embedded.kubeconfig()).await;
        let control_plane = ControlPlane::start(own, options(folder.path())).await.unwrap();
        let client = client(embedded.admin_kubeconfig()).await;
        within(control_plane.hub.synced()).await;
        Self {
            control_plane,
            client,
            embedded,
            folder,
        }
    }

    /// Stops everything and starts it again over the same store.
    pub async fn restart(self) -> Self {
        let folder = self.stop().await;
        Self::start_in(folder).await
    }

    pub async fn stop(self) -> tempfile::TempDir {
        self.control_plane.stop(Duration::from_secs(5)).await;
        self.embedded.shutdown().await;
        self.folder
    }

    /// A connection, verified against the roots that are handed out.
    pub async fn channel(&self) -> Channel {
        let roots = self.control_plane.keeper.authority().roots().to_owned();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(roots))
            .domain_name(NAME);
        let address = format!("https://{}", self.control_plane.address);
        Endpoint::from_shared(address)
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// A token of an account, bound to a pod if one is named.
    pub async fn token(&self, namespace: &str, account: &str, pod: Option<&str>, audience: &str) -> String {
        self.token_for(namespace, account, pod, audience, None).await
    }

    /// The same, for some seconds.
    pub async fn token_for(
        &self,
        namespace: &str,
        account: &str,
        pod: Option<&str>,
        audience: &str,
        seconds: Option<i64>,
    ) -> String {
        let bound = match pod {
            Some(pod) => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.into()),
                    uid: pods.get(pod).await.unwrap().metadata.uid,
                })
            }
            None => None,
        };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.into()]),
                bound_object_ref: bound,
                expiration_seconds: seconds,
            }),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams::default();
        let issued = accounts
            .create_token_request(account, &parameters, &request)
            .await
            .unwrap();
        issued.status.unwrap().token.unwrap()
    }

    pub async fn namespace(&self, name: &str, labels: Value) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        create(&api, json!({"metadata": {"name": name, "labels": labels}})).await;
    }

    pub async fn node(&self, name: &str) {
        let api: Api<Node> = Api::all(self.client.clone());
        create(&api, json!({"metadata": {"name": name}})).await;
    }

    pub async fn account(&self, namespace: &str, name: &str) {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        if api.get_opt(name).await.unwrap().is_none() {
            create(&api, json!({"metadata": {"name": name, "namespace": namespace}})).await;
        }
    }

    /// A running pod.
    pub async fn pod(&self, namespace: &str, name: &str, account: &str, node: &str, address: &str) {
        self.account(namespace, account).await;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let spec = json!({"nodeName": node, "serviceAccountName": account, "containers": [{"name": "app", "image": "none"}]});
        create(&api, json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "spec": spec})).await;
        let status = json!({"status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let parameters = PatchParams::default();
        api.patch_status(name, &parameters, &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub async fn config(&self, yaml: &str) {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "trefoil-system");
        create(&api, json!({"metadata": {"name": "trefoil-mesh", "namespace": "trefoil-system"}, "data": {"mesh.yaml": yaml}})).await;
    }

    /// The text of the metrics.
    pub async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.control_plane.metrics_address)
            .await
            .unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

fn options(folder: &Path) -> Options {
    let any = "127.0.0.1:0".parse().unwrap();
    Options {
        listen: any,
        metrics_listen: any,
        admin_socket: Some(folder.join("admin.sock")),
        webhook_listen: Some(any),
        sidecar_image: "sidecar:test".into(),
        waypoint: Settings {
            image: "waypoint:test".into(),
            pull_policy: None,
        },
        trust_domain: "cluster.local".into(),
        token_audiences: vec!["trefoil-ca".into()],
        node_accounts: vec![("trefoil-system".into(), "trefoil-node".into())],
        flags: Value::Null,
        log_level: LogLevel {
            current: Arc::default(),
            change: Arc::new(|_| Ok(())),
        },
        drain: CancellationToken::new(),
    }
}

pub async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// Waits, but not for ever.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it takes too long")
}

/// Waits until a condition holds.
pub async fn until<T>(mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    within(async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tick.tick().await;
        }
    })
    .await
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// A discovery client that sees every message.
pub struct Discovery {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Discovery {
    /// Connects and sends the first requests.
    pub async fn connect(
        mesh: &Mesh,
        token: &str,
        first: Vec<DeltaDiscoveryRequest>,
    ) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        for request in first {
            requests.send(request).await.unwrap();
        }
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = AggregatedDiscoveryServiceClient::new(mesh.channel().await);
        let call = client.delta_aggregated_resources(with_token(outgoing, token));
        let responses = within(call).await?.into_inner();
        Ok(Self { requests, responses })
    }

    pub async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// The next response, unanswered.
    pub async fn receive(&mut self) -> DeltaDiscoveryResponse {
        within(self.responses.next())
            .await
            .expect("open")
            .expect("response")
    }

    pub async fn acknowledge(&self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        self.send(answer(response, refusal)).await;
    }

    /// The next response, acknowledged.
    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.receive().await;
        self.acknowledge(&response, None).await;
        response
    }

    /// Acknowledges responses until one has a resource of this name, or its removal.
    pub async fn next_with(&mut self, name: &str) -> DeltaDiscoveryResponse {
        loop {
            let response = self.next().await;
            let named = response.resources.iter().any(|one| one.name == name);
            if named || response.removed_resources.iter().any(|one| one == name) {
                return response;
            }
        }
    }
}

pub fn answer(response: &DeltaDiscoveryResponse, refusal: Option<&str>) -> DeltaDiscoveryRequest {
    use trefoil_api::proto::envoy::service::discovery::v3::Status;
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail: refusal.map(|message| Status {
            message: message.into(),
            ..Status::default()
        }),
        ..DeltaDiscoveryRequest::default()
    }
}

pub fn subscribe(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        ..DeltaDiscoveryRequest::default()
    }
}
