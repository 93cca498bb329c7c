//! `helm upgrade` under load: every part of the mesh is replaced, and nothing fails that need not. Connections that
//! outlive a node proxy's drain end with it, and are counted.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Cluster;
use super::under_load::{during, ended, unharmed};
use crate::mesh::eventually;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 7;
/// The mesh's own pods that must be others afterwards, by their label.
const PARTS: [&str; 3] = ["app=trefoil-control-plane", "app=trefoil-node", "app=trefoil-cni"];
/// What is changed of each: enough for its pods to be replaced.
const CHANGES: [&str; 4] = [
    "controlPlane.podAnnotations.changed=yes",
    "node.podAnnotations.changed=yes",
    "cni.podAnnotations.changed=yes",
    "node.drainSeconds=10",
];
/// Attempts that are made at least.
const LEAST: u64 = 500;
const TAINT: &str = "trefoil.dev/agent-not-ready=:NoSchedule";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let trust = trust(cluster).await?;
    let (upgraded, attempts) = during(cluster, async || upgrade(cluster).await).await?;
    report.check("helm upgrade replaces every part of the mesh", upgraded);
    report.check(
        "an agent that can lifts its node's startup taint",
        lifted(cluster).await,
    );
    for (name, tally) in [
        ("a sidecar's client to an ambient server", attempts.to_node),
        ("an ambient client to a sidecar's server", attempts.to_sidecar),
    ] {
        report.check(
            format!("during helm upgrade, attempts of {name}"),
            tally.and_then(|tally| unharmed(tally, LEAST)),
        );
    }
    report.check(
        "during helm upgrade, what was established",
        attempts.established.and_then(ended),
    );
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

async fn upgrade(cluster: &Cluster) -> anyhow::Result<String> {
    let mut before = Vec::new();
    for part in PARTS {
        before.push(cluster.uids("trefoil-system", part).await?);
    }
    // As of a node that was just added. What is there stays.
    cluster.kubectl(&["taint", "node", "n3", TAINT]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Instant::now();
    let changed = cluster.upgrade(&CHANGES).await;
    let took = begun.elapsed();
    // A node proxy that was replaced drains for as long as it was told to.
    tokio::time::sleep(Duration::from_secs(12)).await;
    changed?;
    let mut replaced = 0;
    for (part, old) in PARTS.iter().zip(before) {
        let new = cluster.uids("trefoil-system", part).await?;
        ensure!(
            !new.is_empty() && new.iter().all(|pod| !old.contains(pod)),
            "{part}: {old:?}, then {new:?}"
        );
        replaced += new.len();
    }
    Ok(format!("{replaced} pods in {:.1} s", took.as_secs_f64()))
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
