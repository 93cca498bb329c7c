use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Refusal, Webhook};
use crate::serve::certificates::Mesh;
use trefoil_embedded_api::{self as embedded, Embedded, EmbeddedConfig};

async fn api(folder: &std::path::Path) -> (Embedded, Client) {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let embedded = embedded::start(EmbeddedConfig {
        store_dir: folder.join("store"),
        listen: vec!["127.0.0.1:0".parse().expect("address")],
        kubeconfig_out: None,
        validate: Arc::new(|_, _, _| Ok(())),
    })
    .await
    .expect("started");
    let kubeconfig = serde_json::from_value(embedded.admin_kubeconfig().clone()).expect("kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .expect("configuration");
    (embedded, Client::try_from(config).expect("client"))
}

fn request(namespace: &str) -> Value {
    json!({"namespace": namespace, "object": {"spec": {"containers": [{"name": "app"}]}}})
}

/// Of a webhook that has not heard of any namespace.
#[tokio::test]
async fn a_namespace_that_is_not_known_yet_is_asked_for_and_nothing_is_assumed() {
    let folder = tempfile::tempdir().expect("folder");
    let (embedded, client) = api(folder.path()).await;
    let (_mesh, mesh) = watch::channel(Arc::new(Mesh {
        trust_domain: "cluster.local".into(),
        config: trefoil_api::mesh_config::MeshConfig::default(),
    }));
    let webhook = Webhook {
        client: client.clone(),
        mesh,
        sidecar_image: "sidecar:test".into(),
        metrics: Arc::default(),
    };
    let absent = webhook.inject(&request("shop")).await;
    assert!(matches!(absent, Err(Refusal::NotNow(_))), "{absent:?}");
    let namespaces: Api<Namespace> = Api::all(client);
    for (name, mode) in [("shop", "sidecar"), ("plain", "none")] {
        let labels = json!({"trefoil.dev/dataplane-mode": mode});
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        let namespace = serde_json::from_value(namespace).expect("namespace");
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("created");
    }
    let injected = webhook.inject(&request("shop")).await.expect("admitted");
    assert!(injected.is_some());
    let plain = webhook.inject(&request("plain")).await.expect("admitted");
    assert!(plain.is_none());
    embedded.shutdown().await;
    let unreachable = webhook.inject(&request("shop")).await;
    assert!(matches!(unreachable, Err(Refusal::NotNow(_))), "{unreachable:?}");
}
