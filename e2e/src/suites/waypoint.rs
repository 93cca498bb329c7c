//! Waypoints: policy that asks about HTTP is enforced for every client by whichever way it comes, routes are
//! applied once, nobody's word is taken for another's, and a waypoint comes and goes without a lost request.

mod believed;
mod contested;
mod grpc_routes;
mod lifetime;
mod near;
mod others;
mod routes;
mod ways;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, Pod, eventually};
use crate::report::Report;

/// What every waypoint of this suite is called.
const NAME: &str = "waypoint";
/// Namespaces that have one.
const GUARDED: [&str; 2] = ["sidecar", "ambient"];
/// How long what was applied may take to be in force everywhere.
const SOON: Duration = Duration::from_secs(20);

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("waypoint"), &[]).await?;
    for namespace in GUARDED {
        let made = make(&standard.mesh, namespace).await;
        report.check(format!("a waypoint for {namespace}"), made.map(|()| "programmed"));
    }
    ways::run(&standard, report).await?;
    believed::run(&standard, report).await?;
    others::run(&standard, report).await?;
    routes::run(&standard, report).await?;
    grpc_routes::run(&standard, report).await?;
    near::run(&standard, report).await?;
    contested::run(&standard, report).await?;
    lifetime::run(&standard, report).await?;
    standard.mesh.down().await
}

/// A waypoint for all of a namespace, which the namespace then uses.
async fn make(mesh: &Mesh, namespace: &str) -> anyhow::Result<()> {
    let arguments = [
        "waypoint",
        "apply",
        "--namespace",
        namespace,
        "--for",
        "all",
        "--enroll-namespace",
    ];
    mesh.ctl(&arguments).await.map(drop)
}

/// The pods of a namespace's waypoint.
async fn waypoints(standard: &Standard, namespace: &str) -> anyhow::Result<Vec<Pod>> {
    let pods = standard.mesh.pods(namespace).await?;
    let ours = pods.into_iter().filter(|pod| pod.name.starts_with(NAME));
    Ok(ours.collect())
}

/// The virtual address of a service, and a port of it.
async fn virtual_address(mesh: &Mesh, namespace: &str, name: &str, port: u16) -> anyhow::Result<SocketAddr> {
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
async fn policy(mesh: &Mesh, namespace: &str, spec: Option<&str>) -> anyhow::Result<()> {
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
async fn until_printed(
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
