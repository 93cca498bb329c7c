//! The fixture: a plane that reaches applications on this machine, and clients of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::server::conn::{http1 as server1, http2 as server2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use trefoil_api::Identity;
use trefoil_api::names::MESH_SETTINGS;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::security::Authorization;
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1::{HttpRoute, MeshSettings, Outbound};
use trefoil_api::proto::type_url;
use trefoil_dataplane_core::balance::Endpoint;
use trefoil_dataplane_core::forward::Side;
use trefoil_dataplane_core::identify::Peer;
use trefoil_dataplane_core::telemetry::{self as connections, Flag, Layer, Reporter};
use trefoil_dataplane_http::routing::compile;
use trefoil_dataplane_http::telemetry::Metrics;
use trefoil_dataplane_http::{
    Carrier, Config, Downstream, Engine, OpenFailure, Opened, Permit, Routes, Server, Undeclared,
};
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::Locality;

/// What the cart service is dialled at.
pub(crate) const DIALLED: &str = "10.96.0.1:80";

/// What the system holds of a connection: little, so that what is held here shows.
const BUFFER: u32 = 128 * 1024;

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.set_send_buffer_size(BUFFER).unwrap();
    socket
}

fn listen() -> TcpListener {
    let socket = socket();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(1024).unwrap()
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    socket().connect(to).await
}

/// Opens connections to applications by the address that the mesh knows them under.
#[derive(Default)]
pub(crate) struct Loopback {
    pub(crate) applications: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Connections opened, with the client that each was for.
    pub(crate) opened: Mutex<Vec<String>>,
    /// So many are refused first.
    pub(crate) failing: AtomicUsize,
    /// Nothing is decided here: it is the client's own end.
    undecided: AtomicBool,
}

impl Carrier for Loopback {
    fn open<'a>(
        &'a self,
        to: &'a Server,
        permit: &'a Permit,
        downstream: &'a Downstream,
    ) -> BoxFuture<'a, Result<Opened, OpenFailure>> {
        match permit {
            Permit::Authorized(authorized) => assert_eq!(authorized.destination(), to.endpoint.address),
            Permit::Undecided => assert!(self.undecided.load(Ordering::SeqCst), "nothing was decided"),
        }
        let identity = downstream.peer.identity();
        let client = identity.map_or_else(|| "nobody".into(), ToString::to_string);
        self.opened.lock().unwrap().push(client);
        let failure = |reason: String| OpenFailure {
            reason,
            layer: Layer::Application,
            flag: Flag::Connect,
        };
        Box::pin(async move {
            let fails = |left: usize| left.checked_sub(1);
            if self
                .failing
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails)
                .is_ok()
            {
                return Err(failure("refused, as told".into()));
            }
            let at = self
                .applications
                .lock()
                .unwrap()
                .get(&to.endpoint.address)
                .copied();
            let at = at.ok_or_else(|| failure("no application".into()))?;
            let stream = connect(at).await.map_err(|error| failure(error.to_string()))?;
            Ok(Side::Tcp(stream).into())
        })
    }
}

/// A plane with the services `cart` and `next`, each with endpoints as told.
pub(crate) struct Plane {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) routes: Routes,
    pub(crate) carrier: Arc<Loopback>,
    pub(crate) registry: Registry,
}

fn response<M: Message>(url: &str, resources: &[(String, M)]) -> DeltaDiscoveryResponse {
    let resource = |(name, message): &(String, M)| Resource {
        name: name.clone(),
        version: "1".into(),
        resource: Some(prost_types::Any {
            type_url: url.into(),
            value: message.encode_to_vec(),
        }),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        type_url: url.into(),
        resources: resources.iter().map(resource).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

pub(crate) fn key(service: &str) -> String {
    format!("shop/{service}.shop.svc.cluster.local")
}

impl Plane {
    /// With one application as the endpoint of `cart`, whose port is declared as `protocol`.
    pub(crate) async fn new(application: SocketAddr, protocol: message::AppProtocol) -> Self {
        Self::reporting(Reporter::Waypoint, application, protocol)
    }

    /// The same at the client's own end.
    pub(crate) async fn of_client(application: SocketAddr, protocol: message::AppProtocol) -> Self {
        let plane = Self::reporting(Reporter::Source, application, protocol);
        plane.carrier.undecided.store(true, Ordering::SeqCst);
        plane
    }

    fn reporting(reporter: Reporter, application: SocketAddr, protocol: message::AppProtocol) -> Self {
        let mut registry = Registry::default();
        let config = Config {
            plane: Layer::Waypoint,
            reporter,
            identity: Some(identity("waypoint")),
            requests: Metrics::register(&mut registry),
            connections: connections::Metrics::default(),
            undeclared: Undeclared::default(),
        };
        let (store, routes, carrier) = (Store::new(), Routes::default(), Arc::<Loopback>::default());
        let engine = Engine::new(store.clone(), routes.clone(), carrier.clone(), config);
        let plane = Self {
            engine,
            store,
            routes,
            carrier,
            registry,
        };
        plane.policies(&[]);
        plane.service("cart", 1, protocol);
        plane.endpoint("cart", 1, application, protocol);
        plane
    }

    fn addresses(&self, name: String, of: message::address::Type) {
        let address = message::Address { r#type: Some(of) };
        let refused = self.store.apply(&response(type_url::ADDRESS, &[(name, address)]));
        assert_eq!(refused, []);
    }

    /// A service, dialled at 10.96.0.`number`:80.
    pub(crate) fn service(&self, name: &str, number: u8, protocol: message::AppProtocol) {
        self.service_through(name, number, protocol, None);
    }

    /// The same, which has a waypoint where one is named.
    pub(crate) fn service_through(
        &self,
        name: &str,
        number: u8,
        protocol: message::AppProtocol,
        waypoint: Option<&str>,
    ) {
        let waypoint = waypoint.map(|waypoint| message::GatewayAddress {
            destination: Some(message::gateway_address::Destination::Hostname(
                message::NamespacedHostname {
                    namespace: "shop".into(),
                    hostname: format!("{waypoint}.shop.svc.cluster.local"),
                },
            )),
            hbone_mtls_port: 15008,
        });
        let service = message::Service {
            waypoint,
            name: name.into(),
            namespace: "shop".into(),
            hostname: format!("{name}.shop.svc.cluster.local"),
            addresses: vec![message::NetworkAddress {
                address: vec![10, 96, 0, number].into(),
                ..message::NetworkAddress::default()
            }],
            ports: vec![message::Port {
                service_port: 80,
                target_port: 8080,
                app_protocol: protocol.into(),
            }],
            ..message::Service::default()
        };
        self.addresses(key(name), message::address::Type::Service(service));
    }

    /// An endpoint of a service: the workload 10.0.0.`number`, which is `application`.
    pub(crate) fn endpoint(
        &self,
        service: &str,
        number: u8,
        application: SocketAddr,
        protocol: message::AppProtocol,
    ) {
        self.selected(service, number, application, protocol, &[]);
    }

    /// The same, selected by policies.
    pub(crate) fn selected(
        &self,
        service: &str,
        number: u8,
        application: SocketAddr,
        protocol: message::AppProtocol,
        policies: &[&str],
    ) {
        let name = format!("{service}-{number}");
        let ports = message::PortList {
            ports: vec![message::Port {
                service_port: 80,
                target_port: 8080,
                app_protocol: protocol.into(),
            }],
        };
        let workload = message::Workload {
            uid: format!("Kubernetes//Pod/shop/{name}"),
            name,
            namespace: "shop".into(),
            addresses: vec![vec![10, 0, 0, number].into()],
            service_account: service.into(),
            tunnel_protocol: message::TunnelProtocol::Hbone.into(),
            workload_name: service.into(),
            canonical_name: service.into(),
            node: "n1".into(),
            authorization_policies: policies.iter().map(|policy| (*policy).to_owned()).collect(),
            services: [(key(service), ports)].into(),
            ..message::Workload::default()
        };
        let at = SocketAddr::from(([10, 0, 0, number], 8080));
        self.carrier.applications.lock().unwrap().insert(at, application);
        self.addresses(workload.uid.clone(), message::address::Type::Workload(workload));
    }

    pub(crate) fn policies(&self, policies: &[Authorization]) {
        let named: Vec<_> = policies
            .iter()
            .map(|policy| (format!("{}/{}", policy.namespace, policy.name), policy.clone()))
            .collect();
        let refused = self.store.apply(&response(type_url::AUTHORIZATION, &named));
        assert_eq!(refused, []);
    }

    /// For how long connections to applications are used.
    pub(crate) fn max_age(&self, seconds: u64) {
        let settings = MeshSettings {
            outbound: Outbound::AllowAny.into(),
            connection_max_age: seconds,
            trust_domain: "cluster.local".into(),
            authority: None,
        };
        let named = [(MESH_SETTINGS.to_owned(), settings)];
        assert_eq!(self.store.apply(&response(type_url::MESH_SETTINGS, &named)), []);
    }

    /// There is no such policy any more.
    pub(crate) fn no_policy(&self, name: &str) {
        let mut removal = response::<Authorization>(type_url::AUTHORIZATION, &[]);
        removal.removed_resources.push(name.into());
        assert_eq!(self.store.apply(&removal), []);
    }

    pub(crate) fn route(&self, route: &HttpRoute) {
        self.routes.insert(compile(route).expect("understood"));
    }

    /// A connection of `peer`, which dialled the cart service.
    pub(crate) async fn dial(&self, peer: &Peer) -> TcpStream {
        self.serve(self.downstream(peer)).await
    }

    /// A client whose connection to the first endpoint of the cart service was handed over.
    pub(crate) async fn handed_over(&self, peer: &Peer) -> Client {
        let mut downstream = self.downstream(peer);
        downstream.destination = "10.0.0.1:8080".parse().unwrap();
        downstream.endpoint = Some(Endpoint {
            workload: downstream.own.clone(),
            address: downstream.destination,
        });
        Client::new(self.serve(downstream).await).await
    }

    async fn serve(&self, downstream: Downstream) -> TcpStream {
        let listener = listen();
        let client = connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let serving = self.engine.clone();
        tokio::spawn(async move { serving.serve(accepted, downstream, std::future::pending()).await });
        client
    }

    /// A client that is asked to go once told, and when its connection has ended.
    pub(crate) async fn leaving(&self, peer: &Peer, leave: Arc<Notify>, ended: Arc<AtomicBool>) -> Client {
        let listener = listen();
        let client = connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let serving = self.engine.clone();
        let downstream = self.downstream(peer);
        tokio::spawn(async move {
            serving
                .serve(accepted, downstream, async move { leave.notified().await })
                .await;
            ended.store(true, Ordering::SeqCst);
        });
        Client::new(client).await
    }

    fn downstream(&self, peer: &Peer) -> Downstream {
        let own = self.store.workload("Kubernetes//Pod/shop/cart-1").expect("held");
        Downstream {
            peer: peer.clone(),
            source: "10.0.0.99:40000".parse().unwrap(),
            client: None,
            said: Locality::default(),
            own,
            destination: DIALLED.parse().unwrap(),
            service: self.store.service_at("10.96.0.1".parse().unwrap()),
            endpoint: None,
        }
    }

    /// An HTTP/1.1 client.
    pub(crate) async fn client(&self, peer: &Peer) -> Client {
        Client::new(self.dial(peer).await).await
    }

    pub(crate) async fn client2(&self, peer: &Peer) -> http2::SendRequest<TestBody> {
        let io = TokioIo::new(self.dial(peer).await);
        let (send, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        send
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// Says that it is dropped.
pub(crate) struct Says(pub(crate) mpsc::UnboundedSender<()>);

impl Drop for Says {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

/// Waits until `true_of` says so.
pub(crate) async fn until(what: &str, true_of: impl Fn() -> bool) {
    let waiting = async {
        while !true_of() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

pub(crate) type TestBody = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

pub(crate) fn body(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// A client of one HTTP/1.1 connection.
pub(crate) struct Client {
    pub(crate) send: http1::SendRequest<TestBody>,
}

impl Client {
    async fn new(stream: TcpStream) -> Self {
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self { send }
    }

    pub(crate) async fn send(&mut self, request: Request<TestBody>) -> Response<Incoming> {
        self.send.ready().await.unwrap();
        self.send.send_request(request).await.unwrap()
    }

    /// The status and the body.
    pub(crate) async fn get(&mut self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "cart.shop").body(body(""));
        text(self.send(request.unwrap()).await).await
    }
}

pub(crate) async fn text(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// An application that answers each request by `answer`, in the HTTP that it is spoken to.
pub(crate) async fn application<F, A>(http2: bool, answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<TestBody>> + Send + 'static,
{
    let listener = listen();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answered.await) }
            });
            let io = TokioIo::new(stream);
            tokio::spawn(async move {
                // Clients may leave as they like.
                let _ = match http2 {
                    true => {
                        let builder = server2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(io, service).await
                    }
                    false => {
                        server1::Builder::new()
                            .serve_connection(io, service)
                            .with_upgrades()
                            .await
                    }
                };
            });
        }
    });
    address
}

/// An application that tells what it was asked.
pub(crate) async fn telling(name: &'static str, http2: bool) -> SocketAddr {
    application(http2, move |request: Request<Incoming>| async move {
        let host = request.uri().authority().map(ToString::to_string);
        let host = host.or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()));
        let mut told = format!(
            "{name} {} {} {}",
            request.method(),
            request.uri().path(),
            host.unwrap_or_default()
        );
        if let Some(query) = request.uri().query() {
            told.push_str(&format!(" ?{query}"));
        }
        for (name, value) in request.headers() {
            told.push_str(&format!("\n{name}: {}", value.to_str().unwrap_or("?")));
        }
        Response::new(body(told))
    })
    .await
}

pub(crate) fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).unwrap()
}

/// Nobody in particular.
pub(crate) fn nobody() -> Peer {
    Peer::Unauthenticated
}
