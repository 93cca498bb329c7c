//! What suites about HTTP share: policies that ask about it, and the ways there are to a server.

pub(super) mod ways;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, eventually};

/// How long what was applied may take to be in force everywhere.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// The virtual address of a service, and a port of it.
pub(super) async fn virtual_address(
    mesh: &Mesh,
    namespace: &str,
    name: &str,
    port: u16,
) -> anyhow::Result<SocketAddr> {
    let services: Api<Service> = Api::namespaced(mesh.client().await?, namespace);
    let spec = services
        .get(name)
        .await?
        .spec
        .context("a service without a spec")?;
    let address: IpAddr = spec.cluster_ip.context("a service without an address")?.parse()?;
    Ok(SocketAddr::new(address, port))
}

/// Replaces the policy `http` of a namespace, or removes it.
pub(super) async fn policy(mesh: &Mesh, namespace: &str, spec: Option<&str>) -> anyhow::Result<()> {
    match spec {
        Some(spec) => {
            let object = format!(
                "apiVersion: trefoil.dev/v1alpha1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: http, namespace: {namespace}}}\nspec: {spec}\n"
            );
            mesh.apply(&object).await
        }
        None => mesh.delete("authorizationpolicy", namespace, "http").await,
    }
}

/// A command in a pod, until what it prints is as it should be.
pub(super) async fn until_printed(
    standard: &Standard,
    client: &str,
    command: &[&str],
    right: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let pod = standard.client(client)?;
    eventually(SOON, async || {
        let printed = standard.mesh.exec(pod, command).await?;
        ensure!(right(&printed), "{}: {printed:?}", command.join(" "));
        Ok(printed)
    })
    .await
}
