//! Admission over real TLS, as the API server would call it.
#![allow(clippy::unwrap_used)]

mod serve_support;

use std::sync::Arc;

use base64::Engine;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use serve_support::{Mesh, NAME, until, within};
use tokio::net::TcpStream;

async fn review(mesh: &Mesh, path: &str, request: Value) -> Value {
    let mut roots = rustls::RootCertStore::empty();
    let pem = mesh.control_plane.keeper.authority().roots().to_owned();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = mesh.control_plane.webhook_address.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(NAME.try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    let request = http::Request::post(path)
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(review.to_string())))
        .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    answer["response"].clone()
}

fn pod(namespace: &str, labels: Value) -> Value {
    json!({
        "uid": "1",
        "operation": "CREATE",
        "namespace": namespace,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "object": {
            "metadata": {"generateName": "a-", "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_sidecar_namespaces_get_one_and_others_do_not() {
    let mesh = Mesh::start().await;
    mesh.namespace("shop", json!({"trefoil.dev/dataplane-mode": "sidecar"}))
        .await;
    mesh.namespace("plain", json!({})).await;
    let response = until(async || {
        let response = review(&mesh, "/inject", pod("shop", json!({}))).await;
        assert_eq!(response["allowed"], true);
        response["patch"].as_str().map(str::to_owned)
    })
    .await;
    let patch = base64::engine::general_purpose::STANDARD
        .decode(response)
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut object = pod("shop", json!({}))["object"].clone();
    json_patch::patch(&mut object, &patch).unwrap();
    let sidecar = &object["spec"]["initContainers"][0];
    assert_eq!(
        (&sidecar["name"], &sidecar["image"]),
        (&json!("trefoil-sidecar"), &json!("sidecar:test"))
    );
    let ambient = json!({"trefoil.dev/dataplane-mode": "ambient"});
    for (namespace, labels) in [
        ("plain", json!({})),
        ("shop", ambient),
        ("kube-system", json!({})),
    ] {
        let response = review(&mesh, "/inject", pod(namespace, labels.clone())).await;
        assert_eq!(
            (&response["allowed"], &response["patch"]),
            (&json!(true), &Value::Null),
            "{namespace} {labels}"
        );
    }
    let misspelt = review(
        &mesh,
        "/inject",
        pod("shop", json!({"trefoil.dev/dataplane-mode": "sidcar"})),
    )
    .await;
    assert_eq!(misspelt["allowed"], false);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_would_pass_by_the_mesh_are_refused() {
    let mesh = Mesh::start().await;
    mesh.namespace("shop", json!({"trefoil.dev/dataplane-mode": "ambient"}))
        .await;
    let mut user = pod("shop", json!({}));
    user["object"]["spec"]["securityContext"] = json!({"runAsUser": 15008});
    let mut sidecar = pod("shop", json!({}));
    sidecar["object"]["spec"]["containers"][0]["name"] = "trefoil-sidecar".into();
    for (request, field) in [
        (user, "spec.securityContext.runAsUser"),
        (sidecar, "spec.containers[0]"),
    ] {
        let response = review(&mesh, "/inject", request).await;
        assert_eq!(response["allowed"], false);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.starts_with(field), "{message}");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_refused_with_its_field() {
    let mesh = Mesh::start().await;
    let policy = |spec: Value| {
        json!({
            "uid": "1",
            "operation": "CREATE",
            "kind": {"group": "trefoil.dev", "version": "v1alpha1", "kind": "AuthorizationPolicy"},
            "object": {"metadata": {"name": "a"}, "spec": spec},
        })
    };
    assert_eq!(
        review(&mesh, "/validate", policy(json!({}))).await["allowed"],
        true
    );
    let refused = review(
        &mesh,
        "/validate",
        policy(json!({"rules": [{"to": [{"ports": [0]}]}]})),
    )
    .await;
    assert_eq!(refused["allowed"], false);
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.contains("spec.rules[0].to[0].ports[0]"), "{message}");
    mesh.stop().await;
}
