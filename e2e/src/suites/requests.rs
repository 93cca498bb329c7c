//! HTTP in sidecars, without a waypoint: at the server's end each request is decided about and told who its client is;
//! at the client's end routes are applied, once, and nowhere else.

mod routes;
mod told;

use crate::mesh::standard::Standard;
use crate::report::Report;

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("requests"), &[]).await?;
    super::http::ways::run(&standard, report, &["sidecar"], false).await?;
    told::run(&standard, report).await?;
    routes::run(&standard, report).await?;
    standard.mesh.down().await
}
