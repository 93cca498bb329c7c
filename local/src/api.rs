//! The way to the API server that a kubeconfig names.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client for the API server that the kubeconfig at `path` names. Errors name the file.
pub async fn client(path: &Path) -> anyhow::Result<Client> {
    let named = || format!("reading kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(named)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(named)?;
    Ok(Client::try_from(config)?)
}
