//! A namespace changes plane and changes back while a client asks it at a fixed rate and retries nothing.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use trefoil_api::names::label;
use trefoil_demo_programs::load::Counts;

use super::access::{Line, Log};
use super::{Demo, cast, heading};
use crate::output::{Table, Tone, toned};

/// Requests a second, each over a connection of its own.
const RATE: u32 = 100;
/// How long.
const SECONDS: u32 = 6;
/// How long a plane is kept.
const KEPT: Duration = Duration::from_millis(1800);
/// How long a switch may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Switches `sidecar/web` to the node proxy and back under load from `ambient/api-2`.
pub(super) async fn show(demo: &Demo) -> anyhow::Result<()> {
    heading("The namespace `sidecar` changes to ambient and back, under load that retries nothing");
    let (client, server) = (demo.member("legacy")?, demo.member("web")?);
    let client = demo
        .members
        .iter()
        .find(|member| member.name == "api-2")
        .unwrap_or(client);
    let (sidecar, node) = (
        Log::from_now(server.log(&demo.mesh, "sidecar")),
        Log::from_now(server.log(&demo.mesh, "node")),
    );
    let arguments = [
        "demo-app",
        "load",
        &server.address(),
        "--rate",
        &RATE.to_string(),
        "--seconds",
        &SECONDS.to_string(),
    ];
    let command: Vec<String> = std::iter::once(cast::program()?)
        .chain(arguments.into_iter().map(Into::into))
        .collect();
    let load = client.run(&demo.mesh, &command);
    let switches = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let there = switch(demo, "ambient", "node").await?;
        tokio::time::sleep(KEPT).await;
        let back = switch(demo, "sidecar", "sidecar").await?;
        anyhow::Ok((there, back))
    };
    let (counts, switched) = tokio::join!(load, switches);
    let (there, back) = switched?;
    let counts: Counts = serde_json::from_str(&counts?).context("the load said something else")?;
    println!(
        "switched to the node proxy in {} ms, and back to the sidecar in {} ms",
        there.as_millis(),
        back.as_millis()
    );
    let by = |log: &Log| {
        log.lines()
            .iter()
            .filter(|line| is_of(line, client.addresses.as_slice()))
            .count()
    };
    let (by_sidecar, by_node) = (by(&sidecar), by(&node));
    print!("{}", table(&counts, by_sidecar, by_node).render());
    for failure in counts.failed.iter().chain(&counts.long_lived_failure).take(3) {
        println!("{}", toned(Tone::Bad, failure));
    }
    anyhow::ensure!(
        counts.failed.is_empty() && counts.long_lived_failure.is_none(),
        "the switch was not seamless: see the counts"
    );
    anyhow::ensure!(by_sidecar > 0 && by_node > 0, "only one plane served");
    Ok(())
}

fn is_of(line: &Line, client: &[std::net::IpAddr]) -> bool {
    line.is_from("inbound", client) && line.get("dst.workload") == "web"
}

/// Labels the namespace; how long it took until the pod was on the other plane.
async fn switch(demo: &Demo, mode: &str, plane: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let patch = Patch::Merge(json!({ "metadata": { "labels": { label::DATAPLANE_MODE: mode } } }));
    let namespaces = Api::<Namespace>::all(demo.planes.client().clone());
    namespaces
        .patch("sidecar", &PatchParams::default(), &patch)
        .await?;
    let web = demo.member("web")?;
    let switched = async {
        while demo.plane(web).await? != plane {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(began.elapsed())
    };
    tokio::time::timeout(PATIENCE, switched)
        .await
        .context("the pod has not changed its plane")?
}

fn table(counts: &Counts, by_sidecar: usize, by_node: usize) -> Table {
    let failed = counts.failed.len();
    let tone = if failed == 0 { Tone::Good } else { Tone::Bad };
    let staying = match counts.long_lived_failure {
        None => toned(
            Tone::Good,
            &format!(
                "{} answers over {} connections, never broken",
                counts.long_lived, counts.connections
            ),
        ),
        Some(_) => toned(Tone::Bad, &format!("broke after {} answers", counts.long_lived)),
    };
    let mut table = Table::new(&[
        "SENT",
        "SERVED",
        "FAILED",
        "BY THE SIDECAR",
        "BY THE NODE PROXY",
        "ONE CLIENT THAT STAYED",
    ]);
    table.row([
        counts.sent.to_string(),
        toned(tone, &counts.served.to_string()),
        toned(tone, &failed.to_string()),
        by_sidecar.to_string(),
        by_node.to_string(),
        staying,
    ]);
    table
}
