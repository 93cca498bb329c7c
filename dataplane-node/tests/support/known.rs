//! What a node proxy has from before: resources on disk, and keys that the agent kept. So everything is
//! served without a control plane.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use tokio::sync::watch;
use trefoil_api::Identity;
use trefoil_api::names::{extension, workload_uid};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::workload::{Address, Extension, Service, TunnelProtocol, Workload, address};
use trefoil_api::proto::trefoil::descriptors::Kind;
use trefoil_api::proto::trefoil::v1::{Isolation, Placement, Plane};
use trefoil_api::proto::type_url;
use trefoil_dataplane_process::remember::Remember;
use trefoil_dataplane_state::Certificates;
use trefoil_dataplane_state::certificates::{Settings, SignError, Signer};
use trefoil_dataplane_state::discovery::Held;

use super::{Agent, Pod, until};

/// A workload that the control plane once described.
pub(crate) fn workload(pod: &Pod, address: [u8; 4], isolation: Isolation, policy_selected: bool) -> Resource {
    let placement = Placement {
        plane: Plane::Node.into(),
        isolation: isolation.into(),
        network_policy_selected: policy_selected,
        pod_uid: pod.uid.into(),
    };
    let uid = workload_uid(pod.namespace, pod.name);
    let workload = Workload {
        uid: uid.clone(),
        name: pod.name.into(),
        namespace: pod.namespace.into(),
        addresses: vec![address.to_vec().into()],
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        service_account: "default".into(),
        node: "n1".into(),
        extensions: vec![Extension {
            name: extension::PLACEMENT.into(),
            config: Some(any(type_url::PLACEMENT, &placement)),
        }],
        ..Default::default()
    };
    resource(uid, address::Type::Workload(workload))
}

/// Services that nobody uses: what fills a large mesh.
pub(crate) fn services(count: usize) -> Vec<Resource> {
    let service = |number| {
        let hostname = format!("service-{number}.crowd.svc.cluster.local");
        let service = Service {
            name: format!("service-{number}"),
            namespace: "crowd".into(),
            hostname: hostname.clone(),
            ..Default::default()
        };
        resource(format!("crowd/{hostname}"), address::Type::Service(service))
    };
    (0..count).map(service).collect()
}

fn resource(name: String, content: address::Type) -> Resource {
    let address = Address {
        r#type: Some(content),
    };
    Resource {
        name,
        version: "1".into(),
        resource: Some(any(type_url::ADDRESS, &address)),
        ..Default::default()
    }
}

fn any(url: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: url.into(),
        value: message.encode_to_vec(),
    }
}

/// Writes what was known last, as a node proxy did before.
pub(crate) async fn remember(agent: &Agent, addresses: Vec<Resource>) {
    let mut held = Held::new();
    for (url, resources) in [
        (type_url::AUTHORIZATION, Vec::new()),
        (type_url::ADDRESS, addresses),
    ] {
        let response = DeltaDiscoveryResponse {
            type_url: url.into(),
            resources,
            ..Default::default()
        };
        held.apply(response, &[]);
    }
    let path = agent.folder.path().join("state/last-known-good");
    let (sender, receiver) = watch::channel(held);
    drop(sender);
    Remember::new(path, Duration::ZERO).run(receiver).await;
}

/// Keys of a worker that was, in the agent's keeping.
pub(crate) async fn keep_keys(agent: &Agent, authority: &Arc<Authority>, scope: &str, identities: &[&str]) {
    let certificates = Certificates::new(Arc::clone(authority) as Arc<_>, Settings::default());
    for identity in identities {
        let identity: Identity = identity.parse().unwrap();
        certificates.fetch_ahead(&identity);
        until("a certificate", async || {
            certificates.has(&identity).then_some(())
        })
        .await;
    }
    let keys = trefoil_node::sealed::seal(&certificates.export()).unwrap();
    let name = (i32::from(Kind::Keys), scope.to_owned());
    agent.stored.lock().unwrap().insert(name, keys);
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, root }
    }
}

impl Signer for Authority {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        let mut request = CertificateSigningRequestParams::from_pem(&csr).unwrap();
        let name = rcgen::SanType::URI(identity.to_string().try_into().unwrap());
        request.params.subject_alt_names = vec![name];
        request.params.distinguished_name = DistinguishedName::new();
        let leaf = request.signed_by(&self.issuer).unwrap().pem();
        Box::pin(async move { Ok(vec![leaf, self.root.clone()]) })
    }
}
