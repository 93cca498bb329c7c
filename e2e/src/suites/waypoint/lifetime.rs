//! A waypoint is made, doubled, loses one of its two processes, and is removed, under load at a fixed rate
//! without retries in the client.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;

use super::{NAME, make, virtual_address, waypoints};
use crate::mesh::eventually;
use crate::mesh::processes::signal;
use crate::mesh::standard::Standard;
use crate::programs::load::Tally;
use crate::report::Report;

/// Attempts a second of each load.
const RATE: &str = "50";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let removing = under_load(standard, async || remove(standard).await).await;
    report.check(
        "a waypoint is removed under load",
        removing.and_then(|tallies| unharmed(&tallies, 0)),
    );
    let making = under_load(standard, async || make(&standard.mesh, "ambient").await).await;
    report.check(
        "a waypoint is made under load",
        making.and_then(|tallies| unharmed(&tallies, 0)),
    );
    let doubling = under_load(standard, async || scale(standard, 2).await).await;
    report.check(
        "a waypoint is scaled to two under load",
        doubling.and_then(|tallies| unharmed(&tallies, 0)),
    );
    let killing = under_load(standard, async || kill_one(standard).await).await;
    let in_flight = 2;
    report.check(
        "one of two is killed under load: what was in flight is counted, nothing else fails",
        killing.and_then(|tallies| unharmed(&tallies[..1], in_flight)),
    );
    Ok(())
}

/// Two loads around something that is done: a connection for each request, and long-lived ones.
async fn under_load(
    standard: &Standard,
    act: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Tally>> {
    let target = virtual_address(&standard.mesh, "ambient", "server", 80)
        .await?
        .to_string();
    let flag = tempfile::tempdir()?;
    let flag = flag.path().join("enough");
    let until = flag.to_string_lossy().into_owned();
    let loads = ["0", "20"].map(|connections| load(standard, target.clone(), connections, until.clone()));
    let acting = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let acted = act().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        std::fs::write(&flag, "")?;
        acted
    };
    let (tallies, acted) = tokio::join!(futures::future::try_join_all(loads), acting);
    acted?;
    tallies
}

async fn load(
    standard: &Standard,
    target: String,
    connections: &str,
    until: String,
) -> anyhow::Result<Tally> {
    let program = standard.mesh.program()?;
    let command = [
        &program,
        "load",
        "--target",
        &target,
        "--rate",
        RATE,
        "--seconds",
        "120",
        "--connections",
        connections,
        "--until",
        &until,
    ];
    let client = standard.client("sidecar")?;
    let output = standard
        .mesh
        .exec_within(client, &command, Duration::from_secs(180))
        .await?;
    Ok(serde_json::from_str(&output)?)
}

fn unharmed(tallies: &[Tally], allowed: u64) -> anyhow::Result<String> {
    let mut words = Vec::new();
    for tally in tallies {
        ensure!(tally.attempted >= 200, "only {} attempts", tally.attempted);
        ensure!(tally.lost() <= allowed, "{tally}");
        words.push(tally.to_string());
    }
    Ok(words.join(" · "))
}

async fn remove(standard: &Standard) -> anyhow::Result<()> {
    standard
        .mesh
        .ctl(&["waypoint", "delete", "--namespace", "ambient", "--name", NAME])
        .await
        .map(drop)
}

async fn scale(standard: &Standard, replicas: usize) -> anyhow::Result<()> {
    let arguments = [
        "waypoint",
        "scale",
        "--namespace",
        "ambient",
        "--replicas",
        &replicas.to_string(),
    ];
    standard.mesh.ctl(&arguments).await?;
    eventually(Duration::from_secs(30), async || {
        let running = waypoints(standard, "ambient").await?.len();
        ensure!(running == replicas, "{running} processes");
        Ok(())
    })
    .await
}

async fn kill_one(standard: &Standard) -> anyhow::Result<()> {
    let running = waypoints(standard, "ambient").await?;
    let process = running.first().and_then(|pod| pod.sidecar);
    signal(process.context("no process of a waypoint")?, Signal::KILL)
}
