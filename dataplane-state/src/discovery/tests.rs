use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::pin::Pin;

use proptest::prelude::*;
use rcgen::SanType;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity as ServerIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status as Answer, Streaming};
use trefoil_api::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use trefoil_api::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use trefoil_api::proto::type_url;

use super::stubs::certificate::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use super::stubs::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use super::*;
use crate::certificates::{Authority, AuthorityScope, SignError, Signer};
use crate::state::fixtures::{of_policies, of_workloads, policy, removal, workload};
use crate::tls::authority::{TestAuthority, identity};

const NAME: &str = "trefoil-control-plane.trefoil-system.svc";

/// One stream as the control plane sees it.
struct Opened {
    authorization: String,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Answer>>,
}

impl Opened {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.requests
            .message()
            .await
            .expect("a stream")
            .expect("a request")
    }

    async fn respond(&mut self, mut response: DeltaDiscoveryResponse, nonce: &str) -> DeltaDiscoveryRequest {
        response.nonce = nonce.into();
        self.responses.send(Ok(response)).await.expect("a client");
        let answer = self.request().await;
        assert_eq!(answer.response_nonce, nonce);
        answer
    }
}

struct TestControlPlane {
    streams: mpsc::Sender<Opened>,
    authority: TestAuthority,
    asked: mpsc::Sender<(String, IstioCertificateRequest)>,
}

fn authorization<T>(request: &Request<T>) -> String {
    let value = request.metadata().get("authorization").expect("a token");
    value.to_str().expect("text").to_owned()
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for std::sync::Arc<TestControlPlane> {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Answer>> + Send>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Answer>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Answer> {
        Err(Answer::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Answer> {
        let (responses, stream) = mpsc::channel(8);
        let opened = Opened {
            authorization: authorization(&request),
            requests: request.into_inner(),
            responses,
        };
        let taken = self.streams.send(opened).await;
        taken.map_err(|_| Answer::unavailable("the test has ended"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for std::sync::Arc<TestControlPlane> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Answer> {
        let token = authorization(&request);
        let request = request.into_inner();
        if token == "Bearer stranger" {
            return Err(Answer::unauthenticated("token: wrong audience"));
        }
        let cert_chain = self.authority.sign(&request.csr, &identity("web"), -60, 600);
        self.asked.send((token, request)).await.expect("the test listens");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// A control plane in memory behind a real TLS port, and what a client of it needs.
struct Running {
    folder: tempfile::TempDir,
    streams: mpsc::Receiver<Opened>,
    asked: mpsc::Receiver<(String, IstioCertificateRequest)>,
    control_plane: ControlPlane,
}

impl Running {
    async fn new() -> Self {
        let authority = TestAuthority::new();
        let dns = SanType::DnsName(NAME.try_into().expect("a name"));
        let (certificate, key) = authority.leaf_and_key(vec![dns], -60, 3600);
        let folder = tempfile::tempdir().expect("a folder");
        let control_plane = ControlPlane {
            url: String::new(),
            name: NAME.into(),
            root: write(folder.path(), "root-cert.pem", &authority.root_pem),
            token: write(folder.path(), "token", "first\n"),
        };
        let tls =
            ServerTlsConfig::new().identity(ServerIdentity::from_pem(certificate.pem(), key.serialize_pem()));
        let (opened, streams) = mpsc::channel(4);
        let (signed, asked) = mpsc::channel(4);
        let service = std::sync::Arc::new(TestControlPlane {
            streams: opened,
            authority,
            asked: signed,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Server::builder()
            .tls_config(tls)
            .expect("a certificate")
            .add_service(AggregatedDiscoveryServiceServer::new(service.clone()))
            .add_service(IstioCertificateServiceServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let control_plane = ControlPlane {
            url: format!("https://127.0.0.1:{port}"),
            ..control_plane
        };
        Self {
            folder,
            streams,
            asked,
            control_plane,
        }
    }

    fn client(&self, store: &Store, held: Held) -> Discovery {
        let node = Node {
            role: "sidecar",
            pod: "web".into(),
            namespace: "shop".into(),
            node: "n1".into(),
            addresses: vec![[10, 0, 0, 1].into()],
        };
        Discovery::new(self.control_plane.clone(), node, store.clone(), held).with_backoff(Backoff {
            first: Duration::from_millis(1),
            last: Duration::from_millis(50),
        })
    }

    async fn opened(&mut self) -> Opened {
        self.streams.recv().await.expect("a stream")
    }
}

fn write(folder: &Path, name: &str, content: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(content.as_bytes()).expect("written");
    path
}

fn good_policy(name: &str) -> trefoil_api::proto::istio::security::Authorization {
    use trefoil_api::proto::istio::security::{Action, Scope};
    policy(name, Scope::Namespace, Action::Deny)
}

#[tokio::test]
async fn policies_first_then_what_is_good_is_taken_and_what_is_not_is_refused() {
    let mut running = Running::new().await;
    let store = Store::new();
    let (updates, mut taken) = mpsc::channel(8);
    let client = running.client(&store, Held::new()).with_updates(updates);
    let status = client.status();
    tokio::spawn(client.run());
    let mut stream = running.opened().await;
    assert_eq!(stream.authorization, "Bearer first");
    let first = stream.request().await;
    let later = [stream.request().await, stream.request().await];
    let asked = [&first, &later[0], &later[1]].map(|request| request.type_url.as_str());
    assert_eq!(asked.to_vec(), store.types());
    assert!(first.resource_names_subscribe.is_empty(), "everything");
    let node = first.node.expect("who asks");
    assert_eq!(node.id, "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local");
    assert!(node.metadata.expect("metadata").fields.contains_key("NODE_NAME"));

    let accepted = stream.respond(of_policies(&[good_policy("one")]), "a").await;
    assert_eq!(
        (accepted.type_url.as_str(), accepted.error_detail),
        (type_url::AUTHORIZATION, None)
    );
    let mut bad = workload("bad", [10, 0, 0, 2]);
    bad.status = 9;
    let mixed = of_workloads(&[workload("cart", [10, 0, 0, 1]), bad]);
    let refused = stream.respond(mixed, "b").await.error_detail.expect("a refusal");
    assert_eq!(
        refused.message,
        "Kubernetes//Pod/shop/bad: status: unknown value 9"
    );
    assert!(store.synced() && store.workload_at([10, 0, 0, 1].into()).is_some());
    assert_eq!(taken.recv().await.expect("handed out").resources.len(), 1);
    let handed = taken.recv().await.expect("handed out");
    let versions: Vec<&str> = handed.resources.iter().map(|one| one.version.as_str()).collect();
    assert_eq!(versions, ["1", ""], "what was refused is of no version");
    assert_eq!(status.borrow().refused.len(), 1);
}

#[tokio::test]
async fn after_an_interruption_it_says_what_it_holds() {
    let mut running = Running::new().await;
    let store = Store::new();
    let client = running.client(&store, Held::new());
    tokio::spawn(client.run());
    let mut stream = running.opened().await;
    for _ in store.types() {
        stream.request().await;
    }
    stream
        .respond(of_policies(&[good_policy("one"), good_policy("two")]), "a")
        .await;
    let mut bad = workload("bad", [10, 0, 0, 2]);
    bad.status = 9;
    stream
        .respond(of_workloads(&[workload("cart", [10, 0, 0, 1]), bad]), "b")
        .await;
    stream
        .respond(removal(type_url::AUTHORIZATION, &["shop/two"]), "c")
        .await;
    write(running.folder.path(), "token", "second");
    drop(stream);
    let mut stream = running.opened().await;
    assert_eq!(stream.authorization, "Bearer second", "read again");
    let held = |names: &[&str]| -> HashMap<String, String> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), "1".to_owned()))
            .collect()
    };
    assert_eq!(
        stream.request().await.initial_resource_versions,
        held(&["shop/one"])
    );
    assert!(stream.request().await.initial_resource_versions.is_empty());
    let addresses = stream.request().await.initial_resource_versions;
    let mut expected = held(&["Kubernetes//Pod/shop/cart"]);
    expected.insert("Kubernetes//Pod/shop/bad".into(), String::new());
    assert_eq!(addresses, expected, "what was refused is of no version");
    assert!(
        store.workload_at([10, 0, 0, 1].into()).is_some(),
        "served meanwhile"
    );
}

#[tokio::test]
async fn what_is_remembered_serves_at_once_and_is_not_asked_for_again() {
    let mut running = Running::new().await;
    let mut held = Held::new();
    held.apply(of_policies(&[]), &[]);
    held.apply(of_workloads(&[workload("cart", [10, 0, 0, 1])]), &[]);
    let store = Store::new();
    let client = running.client(&store, held);
    assert!(store.synced(), "before anybody answered");
    tokio::spawn(client.run());
    let mut stream = running.opened().await;
    for expected in [0, 0, 1] {
        assert_eq!(stream.request().await.initial_resource_versions.len(), expected);
    }
}

#[tokio::test]
async fn another_name_or_another_root_is_not_the_control_plane() {
    let mut running = Running::new().await;
    let other = TestAuthority::new();
    let other_root = write(running.folder.path(), "other.pem", &other.root_pem);
    let good = running.control_plane.clone();
    let name = "somebody.else".to_owned();
    let wrong = [
        ControlPlane { name, ..good.clone() },
        ControlPlane {
            root: other_root,
            ..good
        },
    ];
    for control_plane in wrong {
        running.control_plane = control_plane;
        let client = running.client(&Store::new(), Held::new());
        let mut status = client.status();
        let task = tokio::spawn(client.run());
        let ended = status.wait_for(|status| status.terminations > 1).await;
        let ended = ended.expect("a client").clone();
        assert!(!ended.connected);
        let failure = ended.failure.expect("a reason");
        assert!(failure.contains("invalid peer certificate"), "{failure}");
        task.abort();
    }
    assert!(running.streams.try_recv().is_err(), "nothing was asked");
}

#[tokio::test]
async fn the_authority_is_asked_in_ones_own_name_or_for_a_workload() {
    let mut running = Running::new().await;
    for (scope, impersonating) in [(AuthorityScope::Own, false), (AuthorityScope::Node, true)] {
        let authority = Authority::new(running.control_plane.clone(), scope, 600);
        let kept = crate::Certificates::new(std::sync::Arc::new(authority), Default::default());
        kept.server_config(&identity("web")).await.expect("issued");
        let (token, request) = running.asked.recv().await.expect("asked");
        assert_eq!((token.as_str(), request.validity_duration), ("Bearer first", 600));
        let named = request
            .metadata
            .is_some_and(|metadata| metadata.fields.contains_key("ImpersonatedIdentity"));
        assert_eq!(named, impersonating);
    }
    write(running.folder.path(), "token", "stranger");
    let authority = Authority::new(running.control_plane.clone(), AuthorityScope::Own, 600);
    let refused = authority
        .sign(&identity("web"), String::new())
        .await
        .expect_err("refused");
    assert!(
        matches!(&refused, SignError::Refused(why) if why.contains("wrong audience")),
        "{refused}"
    );
    std::fs::remove_file(running.folder.path().join("token")).expect("removed");
    let error = authority
        .sign(&identity("web"), String::new())
        .await
        .expect_err("no token");
    assert!(
        matches!(&error, SignError::Unreachable(why) if why.contains("token")),
        "{error}"
    );
}

#[test]
fn what_is_held_closes_a_successor_as_it_closes_us_and_keeps_the_last_good() {
    use trefoil_api::proto::istio::security::{Action, Scope};
    let good = policy("kept", Scope::Namespace, Action::Deny);
    let mut broken = policy("broken", Scope::Namespace, Action::Deny);
    broken.action = 9;
    let kept_broken = {
        let mut policy = good.clone();
        policy.action = 9;
        policy
    };
    let (store, mut held) = (Store::new(), Held::new());
    for policies in [vec![good], vec![broken, kept_broken]] {
        let response = of_policies(&policies);
        let refusals = store.apply(&response);
        held.apply(response, &refusals);
    }
    let successor = Store::new();
    for response in held.responses() {
        successor.apply(&response);
    }
    let shown = |store: &Store| -> Vec<(String, bool)> {
        let known = store.snapshot();
        let policies = known.policies().iter();
        policies
            .map(|(name, policy)| (name.to_owned(), policy.is_some()))
            .collect()
    };
    assert_eq!(shown(&successor), shown(&store));
    assert_eq!(
        shown(&store),
        [("shop/broken".to_owned(), false), ("shop/kept".to_owned(), true)]
    );
}

proptest! {
    #[test]
    fn pauses_grow_and_are_bounded(failures in 0..1000u32) {
        let backoff = Backoff::default();
        let pause = backoff.pause(failures);
        prop_assert!(pause >= backoff.first / 2 && pause <= backoff.last);
        prop_assert!(failures < 16 || pause >= backoff.last / 2);
    }
}
