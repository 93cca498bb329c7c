//! Who may ask for which certificate, over real TLS, with tokens reviewed by the embedded API.
#![allow(clippy::unwrap_used)]

mod serve_support;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serve_support::stubs::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use serve_support::{Mesh, Replicas, until, with_token, within};
use tonic::{Code, Status};
use trefoil_api::proto::istio::v1::auth::IstioCertificateRequest;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const API: &str = "spiffe://cluster.local/ns/shop/sa/api";

fn csr(names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uris = names.iter().map(|name| SanType::URI((*name).try_into().unwrap()));
    params.subject_alt_names = uris.collect();
    params
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .pem()
        .unwrap()
}

async fn ask(
    mesh: &Mesh,
    token: &str,
    csr: String,
    impersonate: Option<&str>,
) -> Result<Vec<String>, Status> {
    let metadata = impersonate.map(|identity| prost_types::Struct {
        fields: [(
            "ImpersonatedIdentity".to_owned(),
            prost_types::Value {
                kind: Some(prost_types::value::Kind::StringValue(identity.into())),
            },
        )]
        .into(),
    });
    let request = IstioCertificateRequest {
        csr,
        validity_duration: 24 * 3600,
        metadata,
    };
    let mut client = IstioCertificateServiceClient::new(mesh.channel().await);
    let call = client.create_certificate(with_token(request, token));
    Ok(within(call).await?.into_inner().cert_chain)
}

/// The URI names and the remaining seconds of a leaf.
fn read(leaf: &str) -> (Vec<String>, i64) {
    let der = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    let names = names
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    let left = parsed.validity().not_after.timestamp() - time::OffsetDateTime::now_utc().unix_timestamp();
    (names, left)
}

async fn mesh() -> Mesh {
    let mesh = Mesh::start().await;
    mesh.namespace("shop", serde_json::json!({})).await;
    for node in ["n1", "n2"] {
        mesh.node(node).await;
    }
    mesh.pod("shop", "web-0", "web", "n1", "10.0.1.1").await;
    mesh.pod("shop", "api-0", "api", "n2", "10.0.2.1").await;
    mesh.pod("trefoil-system", "node-1", "trefoil-node", "n1", "10.0.1.2")
        .await;
    mesh
}

/// The tokens of those who ask.
struct Tokens {
    web: String,
    node: String,
    elsewhere: String,
    unbound: String,
    revoked: String,
}

impl Tokens {
    async fn of(mesh: &Mesh) -> Self {
        mesh.pod("shop", "gone-0", "web", "n1", "10.0.1.9").await;
        let tokens = Self {
            web: mesh.token("shop", "web", Some("web-0"), "trefoil-ca").await,
            node: node_token(mesh).await,
            elsewhere: mesh.token("shop", "web", Some("web-0"), "another-mesh").await,
            unbound: mesh
                .token("trefoil-system", "trefoil-node", None, "trefoil-ca")
                .await,
            revoked: mesh.token("shop", "web", Some("gone-0"), "trefoil-ca").await,
        };
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(mesh.client.clone(), "shop");
        let now = kube::api::DeleteParams::default().grace_period(0);
        pods.delete("gone-0", &now).await.unwrap();
        tokens
    }
}

async fn node_token(mesh: &Mesh) -> String {
    mesh.token("trefoil-system", "trefoil-node", Some("node-1"), "trefoil-ca")
        .await
}

/// Who asks, with which names in the request, for whom.
struct Asked<'a>(&'a str, &'a [&'a str], Option<&'a str>);

/// What comes of it: whose certificate, or which status and reason.
type Expected = Result<&'static str, (Code, &'static str)>;

async fn expect(mesh: &Mesh, what: &str, Asked(token, names, impersonate): Asked<'_>, expected: Expected) {
    let outcome = ask(mesh, token, csr(names), impersonate).await;
    match (expected, outcome) {
        (Ok(identity), Ok(chain)) => {
            assert_eq!(read(&chain[0]).0, vec![format!("URI({identity})")], "{what}");
            let roots = mesh.control_plane.keeper.authority().roots().to_owned();
            assert_eq!(chain.last(), Some(&roots), "{what}");
        }
        (Err((code, reason)), Err(status)) => {
            assert_eq!(status.code(), code, "{what}: {status:?}");
            assert!(status.message().contains(reason), "{what}: {status:?}");
        }
        (expected, outcome) => panic!("{what}: expected {expected:?}, got {outcome:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_ask() {
    use Code::{InvalidArgument, PermissionDenied, Unauthenticated};
    let mesh = mesh().await;
    let tokens = Tokens::of(&mesh).await;
    let Tokens { web, node, .. } = &tokens;
    let (elsewhere, unbound, revoked) = (&tokens.elsewhere, &tokens.unbound, &tokens.revoked);
    let own = "spiffe://cluster.local/ns/trefoil-system/sa/trefoil-node";
    let foreign = "spiffe://other.org/ns/shop/sa/web";
    let not_accepted = Err((Unauthenticated, "token not accepted"));
    let other = Err((PermissionDenied, "other_identity"));
    let no_identity = Err((InvalidArgument, "not_an_identity"));
    let not_there = Err((PermissionDenied, "not_on_node"));
    let no_proxy = Err((PermissionDenied, "not_a_node_proxy"));
    let no_node = Err((PermissionDenied, "no_node"));
    let no_token = Err((Unauthenticated, "no bearer token"));
    for (what, asked, expected) in [
        ("no token", Asked("", &[], None), no_token),
        ("not a token", Asked("nonsense", &[], None), not_accepted),
        ("wrong audience", Asked(elsewhere, &[], None), not_accepted),
        ("its pod is gone", Asked(revoked, &[], None), not_accepted),
        ("itself", Asked(web, &[WEB], None), Ok(WEB)),
        ("itself, unsaid", Asked(web, &[], None), Ok(WEB)),
        ("CSR for another", Asked(web, &[API], None), other),
        ("two URI names", Asked(web, &[WEB, API], None), other),
        ("no node proxy", Asked(web, &[API], Some(API)), no_proxy),
        ("runs there", Asked(node, &[WEB], Some(WEB)), Ok(WEB)),
        ("runs elsewhere", Asked(node, &[API], Some(API)), not_there),
        ("the mesh's own", Asked(node, &[], Some(own)), not_there),
        ("two names differ", Asked(node, &[API], Some(WEB)), other),
        ("foreign", Asked(node, &[foreign], Some(foreign)), no_identity),
        ("no identity", Asked(node, &[], Some("web")), no_identity),
        ("bound to no pod", Asked(unbound, &[WEB], Some(WEB)), no_node),
    ] {
        expect(&mesh, what, asked, expected).await;
    }
    let metrics = mesh.metrics().await;
    for line in [
        "certificates_signed_total 3",
        "certificates_refused_total{reason=\"other_identity\"} 3",
        "certificates_refused_total{reason=\"not_a_node_proxy\"} 1",
        "certificates_refused_total{reason=\"not_on_node\"} 2",
        "certificates_refused_total{reason=\"not_an_identity\"} 2",
        "certificates_refused_total{reason=\"no_node\"} 1",
        "callers_refused_total{reason=\"no_token\"} 1",
        "callers_refused_total{reason=\"token_not_accepted\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_too_new_for_the_watch_is_looked_up() {
    let mesh = mesh().await;
    let node = node_token(&mesh).await;
    for round in 0..5 {
        let account = format!("new-{round}");
        mesh.pod(
            "shop",
            &account,
            &account,
            "n1",
            &format!("10.0.1.{}", 10 + round),
        )
        .await;
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        // At once, whether or not the watch has seen it.
        ask(&mesh, &node, csr(&[&identity]), Some(&identity))
            .await
            .unwrap();
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifetimes_follow_the_mesh_configuration() {
    let mesh = mesh().await;
    let web = mesh.token("shop", "web", Some("web-0"), "trefoil-ca").await;
    let (_, left) = read(&ask(&mesh, &web, csr(&[]), None).await.unwrap()[0]);
    assert!((23 * 3600..=24 * 3600).contains(&left), "{left}");
    mesh.config("certificateLifetime: 10s").await;
    until(async || {
        let (_, left) = read(&ask(&mesh, &web, csr(&[]), None).await.unwrap()[0]);
        (left <= 10).then_some(())
    })
    .await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_survives_and_its_root_is_in_every_namespace() {
    let mesh = mesh().await;
    let roots = mesh.control_plane.keeper.authority().roots().to_owned();
    let mesh = mesh.restart().await;
    assert_eq!(mesh.control_plane.keeper.authority().roots(), roots);
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(mesh.client.clone(), "shop");
    let map = until(async || maps.get_opt("trefoil-ca-root").await.unwrap()).await;
    assert_eq!(map.data.unwrap()["root-cert.pem"], roots);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_refused() {
    let mesh = mesh().await;
    let token = mesh
        .token_for("shop", "web", Some("web-0"), "trefoil-ca", Some(2))
        .await;
    ask(&mesh, &token, csr(&[]), None).await.unwrap();
    let refused = until(async || ask(&mesh, &token, csr(&[]), None).await.err()).await;
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("token not accepted"), "{refused:?}");
    mesh.stop().await;
}

/// One makes the authority, the other takes it over: with a root each, half the mesh would not trust the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_end_with_one_root() {
    use k8s_openapi::api::core::v1::Secret;
    for _ in 0..5 {
        let replicas = Replicas::start().await;
        let secrets = kube::Api::<Secret>::namespaced(replicas.client.clone(), "trefoil-system");
        let kept = secrets.get("trefoil-ca").await.unwrap().data.unwrap();
        let kept = String::from_utf8(kept["root-cert.pem"].0.clone()).unwrap();
        for control_plane in &replicas.control_planes {
            assert_eq!(control_plane.keeper.authority().roots(), kept);
        }
        replicas.stop().await;
    }
}
