//! Waypoints over a real API: their status and that of routes, what planes are sent, and who gets the certificate
//! of a waypoint's account.
#![allow(clippy::unwrap_used)]

mod serve_support;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value, json};
use serve_support::stubs::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use serve_support::{Mesh, create, until, with_token, within};
use tonic::{Code, Status};
use trefoil_api::proto::istio::v1::auth::IstioCertificateRequest;

const WAYPOINT: &str = "spiffe://cluster.local/ns/shop/sa/waypoint";

fn objects(mesh: &Mesh, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
    let resource = ApiResource::from_gvk(&kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(mesh.client.clone(), namespace, &resource),
        None => Api::all_with(mesh.client.clone(), &resource),
    }
}

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": "shop"},
        "spec": {
            "gatewayClassName": "trefoil-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    })
}

/// The waypoint's own service, with an endpoint that is ready, and service web that uses it.
async fn services(mesh: &Mesh) {
    let services: Api<Service> = Api::namespaced(mesh.client.clone(), "shop");
    let own = json!({"gateway.networking.k8s.io/gateway-name": "waypoint"});
    let uses = json!({"trefoil.dev/use-waypoint": "waypoint"});
    for (name, labels, port) in [("waypoint", own, 15008), ("web", uses, 80)] {
        let metadata = json!({"name": name, "namespace": "shop", "labels": labels});
        let ports = json!([{"name": "main", "port": port}]);
        create(&services, json!({"metadata": metadata, "spec": {"ports": ports}})).await;
    }
    let slices: Api<EndpointSlice> = Api::namespaced(mesh.client.clone(), "shop");
    let labels = json!({"kubernetes.io/service-name": "waypoint"});
    create(
        &slices,
        json!({
            "metadata": {"name": "waypoint-1", "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "main", "port": 15008}],
            "endpoints": [{"addresses": ["10.0.1.5"], "conditions": {"ready": true}}],
        }),
    )
    .await;
}

async fn mesh() -> Mesh {
    let mesh = Mesh::start().await;
    mesh.namespace("shop", json!({})).await;
    mesh.node("n1").await;
    mesh
}

/// The condition of a status, once it has this reason.
async fn becomes(api: &Api<DynamicObject>, name: &str, path: &str, kind: &str, reason: &str) -> Value {
    let mut last = Value::Null;
    let waited = until(async || {
        last = api.get(name).await.unwrap().data["status"].clone();
        let conditions = last.pointer(path)?.as_array()?.clone();
        conditions
            .into_iter()
            .find(|one| one["type"] == kind && one["reason"] == reason)
    });
    waited.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_say_what_becomes_of_gateways_and_routes() {
    let mesh = mesh().await;
    let classes = objects(&mesh, "GatewayClass", None);
    let accepted = becomes(
        &classes,
        "trefoil-waypoint",
        "/conditions",
        "Accepted",
        "Accepted",
    )
    .await;
    assert_eq!(accepted["status"], "True");
    let gateways = objects(&mesh, "Gateway", Some("shop"));
    create(&gateways, gateway()).await;
    let waiting = becomes(&gateways, "waypoint", "/conditions", "Programmed", "Pending").await;
    assert_eq!(waiting["status"], "False");
    services(&mesh).await;
    let programmed = becomes(&gateways, "waypoint", "/conditions", "Programmed", "Programmed").await;
    assert_eq!(
        (&programmed["status"], &programmed["observedGeneration"]),
        (&json!("True"), &json!(1))
    );
    let status = gateways.get("waypoint").await.unwrap().data["status"].clone();
    assert_eq!(status["addresses"][0]["value"], "waypoint.shop.svc.cluster.local");
    assert_eq!(status["listeners"][0]["name"], "mesh");

    let routes = objects(&mesh, "HTTPRoute", Some("shop"));
    let parents = json!([{"group": "", "kind": "Service", "name": "web", "port": 80}]);
    let rules = json!([{"backendRefs": [{"name": "gone", "port": 80}]}]);
    let metadata = json!({"name": "r", "namespace": "shop"});
    create(
        &routes,
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": metadata, "spec": {"parentRefs": parents, "rules": rules},
        }),
    )
    .await;
    let at = "/parents/0/conditions";
    becomes(&routes, "r", at, "ResolvedRefs", "BackendNotFound").await;
    becomes(&routes, "r", at, "trefoil.dev/Applied", "Applied").await;
    let patch = json!({"spec": {"rules": [{"filters": [{"type": "ExtensionRef"}]}]}});
    routes
        .patch("r", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let refused = becomes(&routes, "r", at, "Accepted", "UnsupportedValue").await;
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("spec.rules[0].filters[0].type"), "{message}");
    mesh.stop().await;
}

async fn ask(mesh: &Mesh, token: &str, impersonate: Option<&str>) -> Result<Vec<String>, Status> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
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
        csr: csr.pem().unwrap(),
        validity_duration: 3600,
        metadata,
    };
    let mut client = IstioCertificateServiceClient::new(mesh.channel().await);
    let call = client.create_certificate(with_token(request, token));
    Ok(within(call).await?.into_inner().cert_chain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_of_a_waypoint_is_for_its_own_pods_alone() {
    let mesh = mesh().await;
    create(&objects(&mesh, "Gateway", Some("shop")), gateway()).await;
    mesh.pod("shop", "waypoint-1", "waypoint", "n1", "10.0.1.5").await;
    mesh.pod("shop", "thief", "waypoint", "n1", "10.0.1.6").await;
    mesh.pod("shop", "pretender", "waypoint", "n1", "10.0.1.8").await;
    mesh.pod("shop", "web-0", "web", "n1", "10.0.1.7").await;
    mesh.pod("trefoil-system", "node-1", "trefoil-node", "n1", "10.0.1.2")
        .await;
    let pods: Api<Pod> = Api::namespaced(mesh.client.clone(), "shop");
    let named = json!({"gateway.networking.k8s.io/gateway-name": "waypoint"});
    let made = json!({"gateway.networking.k8s.io/gateway-name": "waypoint", "trefoil.dev/managed-by": "gateway-controller"});
    // A pod that only says so runs under another account, or was made by somebody else.
    for (pod, labels) in [("waypoint-1", &made), ("web-0", &made), ("pretender", &named)] {
        let patch = json!({"metadata": {"labels": labels}});
        pods.patch(pod, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }
    let reserved = async || {
        let snapshot = mesh.control_plane.hub.snapshot();
        snapshot.is_reserved("shop", "waypoint").then_some(())
    };
    until(reserved).await;
    let token = async |namespace: &str, account: &str, pod: Option<&str>| {
        mesh.token(namespace, account, pod, "trefoil-ca").await
    };
    let itself = token("shop", "waypoint", Some("waypoint-1")).await;
    assert!(ask(&mesh, &itself, None).await.is_ok());
    let node = token("trefoil-system", "trefoil-node", Some("node-1")).await;
    for (what, token, impersonate) in [
        (
            "another pod of the account",
            token("shop", "waypoint", Some("thief")).await,
            None,
        ),
        (
            "a pod of the account that somebody else made",
            token("shop", "waypoint", Some("pretender")).await,
            None,
        ),
        ("no pod", token("shop", "waypoint", None).await, None),
        ("a node proxy, for a pod on its node", node, Some(WAYPOINT)),
    ] {
        let status = ask(&mesh, &token, impersonate).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status:?}");
        assert!(
            status.message().contains("reserved_for_waypoint"),
            "{what}: {status:?}"
        );
    }
    let web = token("shop", "web", Some("web-0")).await;
    assert!(
        ask(&mesh, &web, None).await.is_ok(),
        "an account of its own is its own"
    );
    let metrics = mesh.metrics().await;
    assert!(
        metrics.contains("certificates_refused_total{reason=\"reserved_for_waypoint\"} 4"),
        "{metrics}"
    );
    mesh.stop().await;
}
