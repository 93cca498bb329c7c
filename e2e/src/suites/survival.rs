//! Survival: parts of the mesh end without warning, under load. Every attempt made meanwhile is served,
//! late perhaps; what was established and ended is counted and said.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use crate::mesh::processes::{Part, signal};
use crate::mesh::standard::{NODES, Standard};
use crate::mesh::{Pod, eventually};
use crate::programs::load::Tally;
use crate::programs::port;
use crate::report::Report;

pub(super) mod away;
mod patience;

/// For how long each load runs, in seconds.
const SECONDS: &str = "12";

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("survival"), &[]).await?;
    for part in [Part::Worker, Part::Supervisor, Part::Agent, Part::ControlPlane] {
        for node in NODES {
            if part == Part::ControlPlane && node == "n1" {
                continue;
            }
            part_ends(&standard, report, part, node).await?;
        }
    }
    both_ends(&standard, report).await?;
    sidecar_ends(&standard, report).await?;
    patience::run(&standard, report).await?;
    standard.mesh.down().await
}

/// A load from one pod to another; long-lived connections if any are asked for.
pub(super) async fn load(
    standard: &Standard,
    from: &Pod,
    to: &Pod,
    seconds: &str,
    connections: &str,
) -> anyhow::Result<Tally> {
    let target = to.at(port::HTTP).to_string();
    let arguments = [
        "load",
        "--target",
        &target,
        "--rate",
        "50",
        "--limit",
        "20",
        "--seconds",
        seconds,
        "--connections",
        connections,
    ];
    standard.mesh.program_in(from, &arguments).await
}

/// Clients of both planes call the ambient servers of both nodes while a part ends and comes back.
async fn part_ends(standard: &Standard, report: &mut Report, part: Part, node: &str) -> anyhow::Result<()> {
    let ambient = standard.client("ambient")?;
    let sidecar = standard.client("sidecar")?;
    let near = standard.server("ambient", "n1")?;
    let far = standard.server("ambient", "n2")?;
    let loads = async {
        tokio::join!(
            load(standard, ambient, near, SECONDS, "0"),
            load(standard, ambient, far, SECONDS, "0"),
            load(standard, sidecar, far, SECONDS, "0"),
            load(standard, ambient, far, SECONDS, "10"),
        )
    };
    let ending = async {
        // Once the load is under way.
        tokio::time::sleep(Duration::from_secs(2)).await;
        standard.mesh.kill(part, node).await
    };
    let (tallies, killed) = tokio::join!(loads, ending);
    report.check(
        format!("{part} on {node} ends and comes back"),
        killed.map(|count| format!("{count} process(es)")),
    );
    for (route, tally) in [
        ("ambient, same node", tallies.0),
        ("ambient, other node", tallies.1),
        ("sidecar, other node", tallies.2),
    ] {
        let result = tally.and_then(|tally| every_attempt_served(&tally));
        report.check(format!("{part} on {node} ends, attempts from {route}"), result);
    }
    let established = tallies.3.and_then(|tally| {
        // Only what carries bytes takes connections with it.
        let may_end = if matches!(part, Part::Worker | Part::Supervisor) {
            tally.connections
        } else {
            0
        };
        ensure!(tally.connections_lost <= may_end && tally.served >= 50, "{tally}");
        Ok(format!(
            "{} of {} ended, {} requests served",
            tally.connections_lost, tally.connections, tally.served
        ))
    });
    report.check(
        format!("{part} on {node} ends, what was established is counted"),
        established,
    );
    Ok(())
}

fn every_attempt_served(tally: &Tally) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= 500,
        "only {} attempts were made",
        tally.attempted
    );
    // Attempts that were in flight at that moment may end with what carried them: none may be refused.
    ensure!(
        tally.refused == 0 && tally.late == 0 && tally.failed == 0,
        "{tally}"
    );
    ensure!(tally.reset + tally.closed <= 10, "{tally}");
    Ok(tally.to_string())
}

/// The whole node proxy, supervisor and workers, at once.
async fn both_ends(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let client = standard.client("sidecar")?;
    let server = standard.server("ambient", "n2")?;
    let ending = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        for part in [Part::Supervisor, Part::Worker] {
            for process in standard.mesh.processes_of(part, "n2")? {
                // Workers may end with their supervisor.
                let _ = signal(process, Signal::KILL);
            }
        }
        eventually(Duration::from_secs(30), async || {
            let workers = standard.mesh.processes_of(Part::Worker, "n2")?;
            ensure!(!workers.is_empty(), "no worker yet");
            Ok("it is back")
        })
        .await
    };
    let (tally, back) = tokio::join!(load(standard, client, server, SECONDS, "0"), ending);
    report.check("the whole node proxy ends and comes back", back);
    report.check(
        "the whole node proxy ends, attempts",
        tally.and_then(|tally| every_attempt_served(&tally)),
    );
    Ok(())
}

/// A sidecar ends: the other pods of its namespace and node do not notice; its own is back soon.
async fn sidecar_ends(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let client = standard.client("ambient")?;
    let hit = standard.server("sidecar", "n2")?;
    let other = standard.run_server("sidecar", "other", "n2").await?;
    let ambient = standard.server("ambient", "n2")?;
    let ending = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let process = standard.mesh.pod("sidecar", &hit.name).await?.sidecar;
        let Some(process) = process else {
            anyhow::bail!("the pod has no sidecar");
        };
        signal(process, Signal::KILL)?;
        eventually(Duration::from_secs(20), async || {
            let now = standard.mesh.pod("sidecar", &hit.name).await?.sidecar;
            ensure!(now.is_some_and(|now| now != process), "the sidecar is not back");
            Ok("it is back")
        })
        .await
    };
    let ((near, beside), back) = tokio::join!(
        async {
            tokio::join!(
                load(standard, client, &other, SECONDS, "10"),
                load(standard, client, ambient, SECONDS, "10"),
            )
        },
        ending
    );
    report.check("a sidecar ends and comes back", back);
    for (name, tally) in [
        ("another pod of its namespace", near),
        ("an ambient pod of its node", beside),
    ] {
        let result = tally.and_then(|tally| {
            ensure!(
                tally.lost() == 0 && tally.connections_lost == 0 && tally.attempted >= 500,
                "{tally}"
            );
            Ok(tally.to_string())
        });
        report.check(format!("a sidecar ends, {name} does not notice"), result);
    }
    let after = load(standard, client, hit, "2", "0").await.and_then(|tally| {
        ensure!(tally.lost() == 0 && tally.attempted >= 80, "{tally}");
        Ok(tally.to_string())
    });
    report.check("a sidecar ended, its own pod is served again", after);
    Ok(())
}
