//! `helm upgrade` under load: every part of the mesh is replaced, and nothing fails that need not. Connections that
//! outlive a node proxy's drain end with it, and are counted.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Cluster;
use super::switch::program;
use crate::mesh::eventually;
use crate::programs::load::Tally;
use crate::programs::port;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 7;
/// The mesh's own pods that must be others afterwards: label `app`.
const PARTS: [&str; 3] = ["trefoil-control-plane", "trefoil-node", "trefoil-cni"];
/// What is changed of each: enough for its pods to be replaced.
const CHANGES: [&str; 4] = [
    "controlPlane.podAnnotations.changed=yes",
    "node.podAnnotations.changed=yes",
    "cni.podAnnotations.changed=yes",
    "node.drainSeconds=10",
];
/// How long a load lasts unless it is told that it is enough, and may take beyond.
const LIMIT: Duration = Duration::from_secs(240);
const LONG_LIVED: u64 = 20;
const TAINT: &str = "trefoil.dev/agent-not-ready=:NoSchedule";
/// Where a client sees that it is enough.
const ENOUGH: &str = "/tmp/upgraded";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let ambient = target(cluster, "ambient", "n2").await?;
    let sidecar = target(cluster, "sidecar", "n3").await?;
    let trust = trust(cluster).await?;
    let (to_node, to_sidecar, established, upgraded) = tokio::join!(
        load(cluster, "sidecar", &ambient, "0"),
        load(cluster, "ambient", &sidecar, "0"),
        load(cluster, "ambient", &ambient, "20"),
        upgrade(cluster),
    );
    report.check("helm upgrade replaces every part of the mesh", upgraded);
    report.check(
        "an agent that can lifts its node's startup taint",
        lifted(cluster).await,
    );
    for (name, tally) in [
        ("a sidecar's client to an ambient server", to_node),
        ("an ambient client to a sidecar's server", to_sidecar),
    ] {
        let result = tally.and_then(|tally| {
            ensure!(tally.attempted >= 500 && tally.lost() == 0, "{tally}");
            Ok(tally)
        });
        report.check(format!("during helm upgrade, attempts of {name}"), result);
    }
    let ended = established.and_then(|tally| {
        ensure!(
            tally.served > 0 && tally.lost() <= tally.connections_lost && tally.refused + tally.late == 0,
            "{tally}"
        );
        Ok(format!(
            "{} of {LONG_LIVED} at a time ended, with {} of {} answers on them",
            tally.connections_lost,
            tally.lost(),
            tally.attempted
        ))
    });
    report.check("during helm upgrade, what was established", ended);
    let result = self::trust(cluster).await.and_then(|after| {
        ensure!(after == trust, "{after:?}, before {trust:?}");
        Ok("both configurations have the roots, and nobody had to write them anew")
    });
    report.check(
        "helm upgrade leaves alone by which roots webhooks are trusted",
        result,
    );
    let refused = misspelt(cluster).await;
    report.check("helm upgrade refuses a value that there is not", refused);
    Ok(())
}

async fn target(cluster: &Cluster, namespace: &str, node: &str) -> anyhow::Result<String> {
    let address = cluster.address(namespace, "server", node).await?;
    Ok(format!("{address}:{}", port::HTTP))
}

async fn load(cluster: &Cluster, client: &str, target: &str, connections: &str) -> anyhow::Result<Tally> {
    let load = [
        "load",
        "--target",
        target,
        "--rate",
        "50",
        "--seconds",
        "200",
        "--until",
        ENOUGH,
    ];
    let load = [&load[..], &["--connections", connections]].concat();
    cluster.program_in(client, "client", &load, LIMIT).await
}

/// The mesh's own pods by name, and whose they are.
async fn pods(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.metadata.labels.app}/{.metadata.uid} {end}";
    let get = ["get", "pods", "-n", "trefoil-system", "-o", path];
    let pods = cluster.kubectl(&get).await?;
    Ok(pods.split_whitespace().map(str::to_owned).collect())
}

async fn upgrade(cluster: &Cluster) -> anyhow::Result<String> {
    let flags = ["sidecar", "ambient"].map(|client| {
        let process = program(&format!("{client}/client"))?;
        anyhow::Ok(PathBuf::from(format!("/proc/{process}/root{ENOUGH}")))
    });
    let before = pods(cluster).await?;
    // As of a node that was just added. What is there stays.
    cluster.kubectl(&["taint", "node", "n3", TAINT]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Instant::now();
    let changed = cluster.upgrade(&CHANGES).await;
    let took = begun.elapsed();
    // A node proxy that was replaced drains for as long as it was told to.
    tokio::time::sleep(Duration::from_secs(12)).await;
    for flag in flags {
        tokio::fs::write(flag?, "").await?;
    }
    changed?;
    let after = pods(cluster).await?;
    for part in PARTS {
        let of = |pods: &[String]| -> Vec<String> {
            let pods = pods.iter();
            pods.filter(|pod| pod.starts_with(&format!("{part}/")))
                .cloned()
                .collect()
        };
        let (old, new) = (of(&before), of(&after));
        ensure!(
            !new.is_empty() && new.iter().all(|pod| !old.contains(pod)),
            "{part}: {old:?}, then {new:?}"
        );
    }
    Ok(format!("{} pods in {:.1} s", after.len(), took.as_secs_f64()))
}

async fn lifted(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let path = "jsonpath={.spec.taints}";
        let taints = cluster.kubectl(&["get", "node", "n3", "-o", path]).await?;
        ensure!(taints.is_empty(), "{taints}");
        Ok("of n3".to_owned())
    })
    .await
}

/// By which roots each webhook is trusted, and how often its configuration has been written.
async fn trust(cluster: &Cluster) -> anyhow::Result<Vec<(String, i64)>> {
    let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let listed = cluster.kubectl(&["get", kinds, "-o", "json"]).await?;
    let listed: Value = serde_json::from_str(&listed)?;
    let mut found = Vec::new();
    for configuration in listed["items"].as_array().into_iter().flatten() {
        let generation = configuration["metadata"]["generation"].as_i64();
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let roots = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            ensure!(!roots.is_empty(), "{} has no roots", webhook["name"]);
            found.push((roots.to_owned(), generation.context("no generation")?));
        }
    }
    ensure!(found.len() == 3, "{} webhooks", found.len());
    Ok(found)
}

async fn misspelt(cluster: &Cluster) -> anyhow::Result<String> {
    match cluster.upgrade(&["controlPlane.replicsa=3"]).await {
        Ok(()) => anyhow::bail!("it was taken"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("replicsa"), "{said}");
            Ok("by its name".into())
        }
    }
}
