//! Limits: what others do not do is bounded. Readers that stall take no more memory than a pod's budget, and
//! whoever says nothing any more is given up in time.

use crate::mesh::standard::Standard;
use crate::report::Report;

mod silence;
mod stalled;

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("limits"), &[]).await?;
    // First, while the planes hold nothing else.
    stalled::run(&standard, report).await?;
    silence::run(&standard, report).await?;
    standard.mesh.down().await
}
