//! A running embedded API for tests, on a loopback port of its own.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses what it needs"
)]

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use trefoil_embedded_api::{self as embedded, Embedded, EmbeddedConfig, FieldError, Validate};

/// The API and its folder.
pub struct Api {
    /// What is running.
    pub embedded: Embedded,
    folder: tempfile::TempDir,
}

fn validate() -> Validate {
    Arc::new(|_, kind, object| match object["spec"]["action"].as_str() {
        Some("Nonsense") if kind == "AuthorizationPolicy" => Err(vec![FieldError::new(
            "spec.action",
            "must be Allow, Deny or Audit",
        )]),
        _ => Ok(()),
    })
}

impl Api {
    /// Starts one with an empty store.
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(folder: tempfile::TempDir) -> Self {
        let embedded = embedded::start(EmbeddedConfig {
            store_dir: folder.path().join("store"),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            kubeconfig_out: Some(folder.path().join("kubeconfig")),
            validate: validate(),
        })
        .await
        .unwrap();
        Self { embedded, folder }
    }

    /// Stops it and starts it again over the same store.
    pub async fn restart(self) -> Self {
        self.embedded.shutdown().await;
        Self::start_in(self.folder).await
    }

    /// Stops it.
    pub async fn stop(self) {
        self.embedded.shutdown().await;
    }

    /// Where the admin's kubeconfig is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A client of the admin's.
    pub async fn admin(&self) -> kube::Client {
        client(self.embedded.admin_kubeconfig().clone()).await
    }

    /// A client of the control plane's.
    pub async fn control_plane(&self) -> kube::Client {
        client(self.embedded.kubeconfig().clone()).await
    }

    /// A client with a bearer token, or none.
    pub async fn with_token(&self, token: Option<&str>) -> kube::Client {
        let mut kubeconfig = self.embedded.admin_kubeconfig().clone();
        kubeconfig["users"][0]["user"] = match token {
            Some(token) => serde_json::json!({ "token": token }),
            None => serde_json::json!({}),
        };
        client(kubeconfig).await
    }
}

async fn client(kubeconfig: Value) -> kube::Client {
    let kubeconfig = serde_json::from_value(kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    kube::Client::try_from(
        kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap(),
    )
    .unwrap()
}
