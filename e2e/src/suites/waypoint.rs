//! Waypoints: policy that asks about HTTP is enforced for every client by whichever way it comes, routes are
//! applied once, nobody's word is taken for another's, and a waypoint comes and goes without a lost request.

mod believed;
mod contested;
mod fenced;
mod grpc_routes;
mod lifetime;
mod near;
mod others;
mod routes;

use super::http::{self, SOON, policy, until_printed, virtual_address};
use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, Pod};
use crate::report::Report;

/// What every waypoint of this suite is called.
const NAME: &str = "waypoint";
/// Namespaces that have one.
const GUARDED: [&str; 2] = ["sidecar", "ambient"];

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("waypoint"), &[]).await?;
    for namespace in GUARDED {
        let made = make(&standard.mesh, namespace).await;
        report.check(format!("a waypoint for {namespace}"), made.map(|()| "programmed"));
    }
    http::ways::run(&standard, report, &GUARDED, true).await?;
    believed::run(&standard, report).await?;
    fenced::run(&standard, report).await?;
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
