//! The way to the API server: of a cluster, or of the mesh on this machine.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::local::mesh::Mesh;

/// The kubeconfig to be used: as asked, of the environment, or of the running local mesh.
pub(crate) fn kubeconfig_path(asked: Option<&Path>, mesh: &Mesh) -> Option<PathBuf> {
    let local = Some(mesh.kubeconfig()).filter(|path| path.exists());
    asked
        .map(Path::to_path_buf)
        .or_else(|| {
            std::env::var_os("KUBECONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        })
        .or(local)
}

/// A client for the API server that `kubeconfig` names, else of the cluster that this program runs in.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => config_of(path).await?,
        None => Config::infer().await.context(
            "no API server: give --kubeconfig, or start a mesh on this machine with `trefoilctl local up`",
        )?,
    };
    Ok(Client::try_from(config)?)
}

async fn config_of(path: &Path) -> anyhow::Result<Config> {
    let named = || format!("reading kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(named)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(named)
}
