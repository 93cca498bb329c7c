//! The way to the API server: of a cluster, or of the mesh on this machine.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::Kubeconfig;
use kube::{Client, Config};
use trefoil_local::api;
use trefoil_local::mesh::Mesh;

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

/// Whether there is a cluster without its being named: the user's own kubeconfig, or that of the pod that this is.
pub(crate) fn is_inferred() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || Kubeconfig::read().is_ok()
}

/// A client for the API server that `kubeconfig` names, else of the cluster that this program runs in.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let Some(path) = kubeconfig else {
        let config = Config::infer().await.context(
            "no API server: give --kubeconfig, or start a mesh on this machine with `trefoilctl local up`",
        )?;
        return Ok(Client::try_from(config)?);
    };
    api::client(path).await
}
