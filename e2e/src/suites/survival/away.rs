//! The control plane is away for minutes, and the node proxy restarts meanwhile: it serves with what it
//! last knew.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::load;
use crate::mesh::eventually;
use crate::mesh::processes::{Part, signal};
use crate::mesh::standard::Standard;
use crate::report::Report;

/// For how long the control plane answers nobody.
const AWAY: Duration = Duration::from_secs(300);

pub(in crate::suites) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&crate::suites::mesh_of("away"), &[]).await?;
    // What is to be lived on has to have come: the certificates of both ends.
    let client = standard.client("ambient")?;
    let tally = load(&standard, client, standard.server("ambient", "n2")?, "1", "0").await?;
    ensure!(tally.lost() == 0, "before the control plane goes away: {tally}");
    let control_plane = standard.mesh.processes_of(Part::ControlPlane, "")?;
    ensure!(!control_plane.is_empty(), "no control plane");
    for process in &control_plane {
        signal(*process, Signal::STOP)?;
    }
    let result = without(&standard, report).await;
    for process in &control_plane {
        signal(*process, Signal::CONT)?;
    }
    result?;
    let late = eventually(Duration::from_secs(60), async || {
        let pod = standard.run_client("ambient", "late", "client", "n1").await?;
        let tally = load(&standard, &pod, standard.server("ambient", "n2")?, "1", "0").await?;
        ensure!(tally.lost() == 0, "{tally}");
        Ok("a new pod is enrolled and served")
    });
    report.check("the control plane is back", late.await);
    standard.mesh.down().await
}

async fn without(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let client = standard.client("ambient")?;
    let server = standard.server("ambient", "n2")?;
    let begun = tokio::time::Instant::now();
    for node in ["n1", "n2"] {
        let restarted = standard.mesh.kill(Part::Supervisor, node).await;
        report.check(
            format!("without a control plane, the node proxy of {node} restarts"),
            restarted.map(|count| format!("{count} process(es)")),
        );
    }
    let tally = load(standard, client, server, "60", "0").await.and_then(|tally| {
        ensure!(tally.lost() == 0 && tally.attempted >= 2500, "{tally}");
        Ok(tally.to_string())
    });
    report.check("without a control plane, after the restart", tally);
    tokio::time::sleep_until(begun + AWAY).await;
    let tally = load(standard, client, server, "5", "0").await.and_then(|tally| {
        ensure!(tally.lost() == 0 && tally.attempted >= 200, "{tally}");
        Ok(tally.to_string())
    });
    report.check(format!("without a control plane for {} s", AWAY.as_secs()), tally);
    Ok(())
}
