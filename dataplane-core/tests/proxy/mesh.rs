//! The fixture: pods on loopback addresses of their own, captured without redirection. Where a connection was
//! going is told to the pod's dialer before the connection is made.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType,
};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use trefoil_api::Identity;
use trefoil_api::names::{self, extension, port};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::security::{self, Authorization};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1::{Isolation, MeshSettings, Outbound, Placement, Plane};
use trefoil_api::proto::type_url;
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::proxy::{Pod, Proxy, ProxyConfig, ProxyParts};
use trefoil_dataplane_core::sockets::{self, Dialer, Family};
use trefoil_dataplane_core::telemetry::{Layer, Metrics};
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::certificates::{Certificates, Settings, SignError, Signer};
use trefoil_dataplane_state::state::fixtures::fenced;

/// Signs whatever it is asked to.
pub(crate) struct Authority {
    signing: Mutex<Signing>,
    lifetime: Duration,
}

/// What an authority signs with, and the roots that it hands out.
struct Signing {
    issuer: Arc<Issuer<'static, KeyPair>>,
    roots: String,
}

/// A root and what signs with it.
#[derive(Clone)]
pub(crate) struct Root {
    issuer: Arc<Issuer<'static, KeyPair>>,
    pub(crate) pem: String,
}

impl Root {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Arc::new(Issuer::new(params, key)),
            pem,
        }
    }
}

impl Authority {
    pub(crate) fn new(root: &Root, lifetime: Duration) -> Self {
        Self {
            signing: Mutex::new(Signing {
                issuer: root.issuer.clone(),
                roots: root.pem.clone(),
            }),
            lifetime,
        }
    }

    /// Signs with one root from now on, and hands out these.
    pub(crate) fn change(&self, root: &Root, handed_out: &[&Root]) {
        *self.signing.lock().unwrap() = Signing {
            issuer: root.issuer.clone(),
            roots: handed_out.iter().map(|root| root.pem.as_str()).collect(),
        };
    }
}

impl Signer for Authority {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        let name = SanType::URI(identity.to_string().try_into().unwrap());
        Box::pin(async move {
            let mut request = CertificateSigningRequestParams::from_pem(&csr).unwrap();
            request.params.subject_alt_names = vec![name];
            request.params.not_after = (std::time::SystemTime::now() + self.lifetime).into();
            let signing = self.signing.lock().unwrap();
            let leaf = request.signed_by(&signing.issuer).unwrap();
            Ok(vec![leaf.pem(), signing.roots.clone()])
        })
    }
}

/// Sockets with a pod's address, which know where captured connections were going.
pub(crate) struct TestDialer {
    address: IpAddr,
    going: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Sockets that the proxy asked for.
    pub(crate) sockets: AtomicUsize,
}

impl Dialer for TestDialer {
    fn socket(&self, _: Family) -> BoxFuture<'_, io::Result<TcpSocket>> {
        self.sockets.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(self.address, 0))?;
            Ok(socket)
        })
    }

    fn transparent(&self) -> bool {
        false
    }

    fn original_destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        let going = self.going.lock().unwrap().get(&accepted.peer_addr()?).copied();
        going.map_or_else(|| accepted.local_addr(), Ok)
    }
}

/// A pod of the mesh.
pub(crate) struct TestPod {
    pub(crate) name: &'static str,
    pub(crate) address: IpAddr,
    pub(crate) dialer: Arc<TestDialer>,
}

impl TestPod {
    pub(crate) fn identity(&self) -> Identity {
        Identity::new("cluster.local", "shop", self.name).unwrap()
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// The pod's application dials, and is captured.
    pub(crate) async fn dial(&self, destination: SocketAddr) -> TcpStream {
        self.captured(destination, self.at(port::OUTBOUND)).await
    }

    /// A socket with the pod's address, to a listener of a plane, as if it had been redirected there.
    pub(crate) async fn captured(&self, destination: SocketAddr, listener: SocketAddr) -> TcpStream {
        self.redirected(self, destination, listener)
    }

    /// Plaintext from `client`, captured at this pod.
    pub(crate) async fn plaintext(&self, client: &TestPod, destination: SocketAddr) -> TcpStream {
        self.redirected(client, destination, self.at(port::INBOUND))
    }

    /// Connects without giving way to the plane, which may reset it at once.
    fn redirected(&self, client: &TestPod, destination: SocketAddr, listener: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&client.at(0).into()).unwrap();
        let source = socket.local_addr().unwrap().as_socket().unwrap();
        self.dialer.going.lock().unwrap().insert(source, destination);
        socket.connect(&listener.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        TcpStream::from_std(socket.into()).unwrap()
    }

    /// A listener of the pod's application.
    pub(crate) async fn listen(&self) -> TcpListener {
        TcpListener::bind(self.at(0)).await.unwrap()
    }

    /// An application that sends back what it gets. Returns its address.
    pub(crate) async fn echo(&self) -> SocketAddr {
        let listener = self.listen().await;
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                });
            }
        });
        address
    }
}

/// A client's pod and a server's, each with a proxy of its own unless told otherwise.
pub(crate) struct Mesh {
    pub(crate) authority: Arc<Authority>,
    pub(crate) root: Root,
    pub(crate) store: Store,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) client: TestPod,
    pub(crate) server: TestPod,
    pub(crate) at_client: Arc<Proxy>,
    pub(crate) at_server: Arc<Proxy>,
    pub(crate) drain: Drain,
    registry: Registry,
}

impl Mesh {
    /// Two proxies.
    pub(crate) async fn new() -> Self {
        Self::with(config(), false).await
    }

    /// One proxy for both pods.
    pub(crate) async fn same_node() -> Self {
        Self::with(config(), true).await
    }

    pub(crate) async fn with(config: ProxyConfig, same_node: bool) -> Self {
        Self::certified_for(Duration::from_secs(3600), config, same_node).await
    }

    /// Certificates are valid for so long.
    pub(crate) async fn certified_for(lifetime: Duration, config: ProxyConfig, same_node: bool) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let network = NEXT.fetch_add(1, Ordering::SeqCst);
        let second = (std::process::id() % 200) as u8 + 10;
        let store = Store::new();
        let root = Root::new();
        let authority = Arc::new(Authority::new(&root, lifetime));
        let certificates = Certificates::new(authority.clone(), Settings::default());
        let mut registry = Registry::default();
        let (client, server) = (
            pod("web", Ipv4Addr::new(127, second, network, 1)),
            pod("cart", Ipv4Addr::new(127, second, network, 2)),
        );
        let drain = Drain::new();
        let mut proxy = || {
            Proxy::new(ProxyParts {
                store: store.clone(),
                certificates: certificates.clone(),
                metrics: Metrics::register(&mut registry),
                config,
                drain: drain.clone(),
            })
        };
        let at_client = proxy();
        let at_server = if same_node { at_client.clone() } else { proxy() };
        at_client.add_pod(served(&client));
        at_server.add_pod(served(&server));
        let mesh = Self {
            authority,
            root,
            store,
            certificates,
            client,
            server,
            at_client,
            at_server,
            drain,
            registry,
        };
        mesh.policies(&[]);
        mesh.learn(&mesh.client);
        mesh.learn(&mesh.server);
        mesh
    }

    /// A pod's workload becomes known.
    pub(crate) fn learn(&self, pod: &TestPod) {
        self.apply(type_url::ADDRESS, &[address(pod)]);
    }

    /// A pod's workload is known no more.
    pub(crate) fn forget(&self, pod: &TestPod) {
        let refused = self.store.apply(&DeltaDiscoveryResponse {
            type_url: type_url::ADDRESS.into(),
            removed_resources: vec![names::workload_uid("shop", pod.name)],
            ..DeltaDiscoveryResponse::default()
        });
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// A NetworkPolicy selects the server, and lets the client in to one port, and nobody else.
    pub(crate) fn fence(&self, port: u16) {
        let one = |pod: &TestPod, groups: &[&str], lets_in: Option<(&str, u32)>| {
            let (uid, address) = address(pod);
            let Some(message::address::Type::Workload(workload)) = address.r#type else {
                unreachable!("a pod is a workload")
            };
            let workload = fenced(workload, groups, lets_in);
            let r#type = Some(message::address::Type::Workload(workload));
            (uid, message::Address { r#type })
        };
        let both = [
            one(&self.client, &["web"], None),
            one(&self.server, &[], Some(("web", port.into()))),
        ];
        self.apply(type_url::ADDRESS, &both);
    }

    /// The metrics, as they are scraped.
    pub(crate) fn metrics(&self) -> String {
        let mut shown = String::new();
        prometheus_client::encoding::text::encode(&mut shown, &self.registry).unwrap();
        shown
    }

    /// Puts resources in force.
    pub(crate) fn apply<M: Message>(&self, type_url: &str, resources: &[(String, M)]) {
        let resource = |(name, message): &(String, M)| Resource {
            name: name.clone(),
            version: "1".into(),
            resource: Some(prost_types::Any {
                type_url: type_url.into(),
                value: message.encode_to_vec(),
            }),
            ..Resource::default()
        };
        let refused = self.store.apply(&DeltaDiscoveryResponse {
            type_url: type_url.into(),
            resources: resources.iter().map(resource).collect(),
            ..DeltaDiscoveryResponse::default()
        });
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// Puts policies of namespace `shop` in force.
    pub(crate) fn policies(&self, policies: &[Authorization]) {
        let named: Vec<_> = policies
            .iter()
            .map(|policy| (format!("{}/{}", policy.namespace, policy.name), policy.clone()))
            .collect();
        self.apply(type_url::AUTHORIZATION, &named);
    }

    /// Puts mesh-wide settings in force.
    pub(crate) fn settings(&self, outbound: Outbound, max_age: u64) {
        let settings = MeshSettings {
            outbound: outbound.into(),
            connection_max_age: max_age,
            trust_domain: "cluster.local".into(),
            authority: None,
        };
        self.apply(
            type_url::MESH_SETTINGS,
            &[(names::MESH_SETTINGS.into(), settings)],
        );
    }

    /// A service whose endpoint is the server's pod, said to be of account `of_workload`, and whom the
    /// service names beside. Returns its virtual address.
    pub(crate) fn service(&self, of_workload: &str, named: &[Identity], port: u16) -> SocketAddr {
        let virtual_address = Ipv4Addr::new(10, 96, 0, 1);
        let service = message::Service {
            name: "cart".into(),
            namespace: "shop".into(),
            hostname: "cart.shop.svc.cluster.local".into(),
            addresses: vec![message::NetworkAddress {
                address: virtual_address.octets().to_vec().into(),
                ..message::NetworkAddress::default()
            }],
            ports: vec![message::Port {
                service_port: 80,
                target_port: port.into(),
                ..message::Port::default()
            }],
            subject_alt_names: named.iter().map(ToString::to_string).collect(),
            ..message::Service::default()
        };
        let r#type = Some(message::address::Type::Service(service.clone()));
        let key = format!("shop/{}", service.hostname);
        let (uid, mut server) = address(&self.server);
        if let Some(message::address::Type::Workload(workload)) = &mut server.r#type {
            workload.service_account = of_workload.into();
            let ports = message::PortList { ports: service.ports };
            workload.services.insert(key.clone(), ports);
        }
        self.apply(
            type_url::ADDRESS,
            &[(key, message::Address { r#type }), (uid, server)],
        );
        SocketAddr::new(virtual_address.into(), 80)
    }
}

/// As in production, but a pod that leaves is quiet at once.
pub(crate) fn config() -> ProxyConfig {
    ProxyConfig {
        quiet: Duration::from_millis(20),
        ..ProxyConfig::of(Layer::Node)
    }
}

/// A policy that denies a principal.
pub(crate) fn deny(name: &str, principal: &Identity) -> Authorization {
    let exact = security::StringMatch {
        match_type: Some(security::string_match::MatchType::Exact(principal.principal())),
    };
    let one = security::Match {
        principals: vec![exact],
        ..security::Match::default()
    };
    let clause = security::Clause { matches: vec![one] };
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: security::Scope::Namespace.into(),
        action: security::Action::Deny.into(),
        rules: vec![security::Rule {
            clauses: vec![clause],
        }],
        ..Authorization::default()
    }
}

/// A pod, which nothing serves yet.
pub(crate) fn pod(name: &'static str, address: Ipv4Addr) -> TestPod {
    let address = IpAddr::V4(address);
    let dialer = TestDialer {
        address,
        going: Mutex::default(),
        sockets: AtomicUsize::new(0),
    };
    TestPod {
        name,
        address,
        dialer: Arc::new(dialer),
    }
}

/// What a proxy serves of a pod.
pub(crate) fn served(pod: &TestPod) -> Pod {
    let listener = |port| sockets::listener(pod.at(port)).unwrap();
    Pod {
        uid: format!("uid-{}", pod.name),
        namespace: "shop".into(),
        name: pod.name.into(),
        identity: pod.identity(),
        workload_uid: names::workload_uid("shop", pod.name),
        outbound: listener(port::OUTBOUND),
        inbound: listener(port::INBOUND),
        hbone: listener(port::HBONE),
        dialer: pod.dialer.clone(),
    }
}

/// A pod's workload, as the control plane says it.
pub(crate) fn address(pod: &TestPod) -> (String, message::Address) {
    let IpAddr::V4(address) = pod.address else {
        unreachable!("pods of tests are IPv4")
    };
    let uid = names::workload_uid("shop", pod.name);
    let placement = Placement {
        plane: Plane::Node.into(),
        isolation: Isolation::Shared.into(),
        network_policy_selected: false,
        pod_uid: format!("uid-{}", pod.name),
    };
    let workload = message::Workload {
        uid: uid.clone(),
        name: pod.name.into(),
        namespace: "shop".into(),
        addresses: vec![address.octets().to_vec().into()],
        service_account: pod.name.into(),
        tunnel_protocol: message::TunnelProtocol::Hbone.into(),
        workload_name: pod.name.into(),
        canonical_name: pod.name.into(),
        extensions: vec![message::Extension {
            name: extension::PLACEMENT.into(),
            config: Some(prost_types::Any {
                type_url: "type.googleapis.com/trefoil.v1.Placement".into(),
                value: placement.encode_to_vec(),
            }),
        }],
        ..message::Workload::default()
    };
    let r#type = Some(message::address::Type::Workload(workload));
    (uid, message::Address { r#type })
}

/// Sends `text` and waits for it to come back.
pub(crate) async fn echoed(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text.as_bytes());
}

/// Waits for the reset of a connection that nothing more is read from.
pub(crate) async fn until_reset(stream: &mut TcpStream) {
    let error = stream
        .read(&mut [0; 16])
        .await
        .expect_err("an orderly end, not a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}
