//! The root is replaced as docs/operations.md says, by its very commands, while there is traffic. Nothing is lost, and in
//! the end nobody shows or believes anything of the old one.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::cluster::Cluster;
use super::ctl::{install, told};
use super::under_load::{during, undisturbed, unharmed};
use crate::mesh::eventually;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 4;
const PROCEDURE: &str = include_str!("../../../../docs/operations.md");
const SECTION: &str = "\n## Replace the root\n";
/// Its steps, and what goes before them.
const STEPS: [&str; 3] = ["believed", "signed with", "alone"];
/// How soon a plane is behind after a change, and how long until none is.
const BEHIND: Duration = Duration::from_secs(30);
const FOLLOWED: Duration = Duration::from_secs(90);
/// Attempts that are made at least.
const LEAST: u64 = 2000;
/// Where the commands are run.
const FOLDER: &str = "/tmp/replace-the-root";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    install(&cluster.script).await?;
    let (replaced, attempts) = during(cluster, async || replace(cluster).await).await?;
    report.check(
        "the root is replaced by the procedure of docs/operations.md",
        replaced,
    );
    for (name, tally) in [
        ("a sidecar's client to an ambient server", attempts.to_node),
        ("an ambient client to a sidecar's server", attempts.to_sidecar),
    ] {
        report.check(
            format!("while the root is replaced, attempts of {name}"),
            tally.and_then(|tally| unharmed(tally, LEAST)),
        );
    }
    let kept = attempts.established.and_then(|tally| undisturbed(tally, LEAST));
    report.check("while the root is replaced, what was established", kept);
    Ok(())
}

/// The commands of the section, block by block.
fn blocks() -> anyhow::Result<Vec<&'static str>> {
    let (_, section) = PROCEDURE.split_once(SECTION).context("no such section")?;
    let (section, _) = section.split_once("\n## ").context("no end of the section")?;
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| {
            block
                .split_once("```")
                .map(|(block, _)| block)
                .context("no end of a block")
        })
        .collect()
}

async fn replace(cluster: &Cluster) -> anyhow::Result<String> {
    let before = root(cluster).await?;
    let blocks = blocks()?;
    let [prepare, steps @ ..] = blocks.as_slice() else {
        anyhow::bail!("no commands");
    };
    ensure!(steps.len() == STEPS.len(), "{} steps", steps.len());
    commands(
        cluster,
        &format!("rm -rf {FOLDER}; mkdir {FOLDER}; cd {FOLDER}\n{prepare}"),
    )
    .await?;
    let mut took = Vec::new();
    for (step, what) in steps.iter().zip(STEPS) {
        let begun = Instant::now();
        commands(cluster, &format!("cd {FOLDER}\n{step}")).await?;
        let most = followed(cluster)
            .await
            .with_context(|| format!("the new root, {what}"))?;
        took.push(format!(
            "{what} by all in {:.0} s, {most} planes behind",
            begun.elapsed().as_secs_f64()
        ));
    }
    let after = root(cluster).await?;
    ensure!(
        after != before && after.matches("BEGIN CERTIFICATE").count() == 1,
        "{after}"
    );
    commands(cluster, &format!("rm -r {FOLDER}")).await?;
    Ok(took.join("; "))
}

async fn commands(cluster: &Cluster, script: &str) -> anyhow::Result<()> {
    let command = ["bash", "-euo", "pipefail", "-c", script];
    cluster.on("n1", &command, None).await.map(drop)
}

/// What pods are told to believe.
async fn root(cluster: &Cluster) -> anyhow::Result<String> {
    let path = r"jsonpath={.data.root-cert\.pem}";
    cluster
        .kubectl(&["get", "configmap", "-n", "ambient", "trefoil-ca-root", "-o", path])
        .await
}

/// Waits until every plane has followed a change; how many were seen to be behind at once, which is not none.
async fn followed(cluster: &Cluster) -> anyhow::Result<usize> {
    let first = eventually(BEHIND, async || {
        let behind = behind(cluster).await?;
        ensure!(behind > 0, "no plane is found behind");
        Ok(behind)
    })
    .await?;
    let most = Cell::new(first);
    eventually(FOLLOWED, async || {
        let behind = behind(cluster).await?;
        most.set(most.get().max(behind));
        ensure!(behind == 0, "{behind} planes are behind");
        Ok(())
    })
    .await?;
    Ok(most.get())
}

/// How many findings there are of who signs and of certificates that are not of the authority in force.
async fn behind(cluster: &Cluster) -> anyhow::Result<usize> {
    let found = told(cluster, &["check"]).await?;
    let found = found.as_array().context("a list")?;
    let of_authority = |finding: &&Value| {
        let said = finding["finding"].as_str().unwrap_or_default();
        let words = [
            "of another authority",
            "different authorities",
            "of which authority",
        ];
        words.iter().any(|words| said.contains(words))
    };
    Ok(found.iter().filter(of_authority).count())
}
