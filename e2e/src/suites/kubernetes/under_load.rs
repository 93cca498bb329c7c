//! Attempts between both kinds of planes while something is done to the mesh: a connection for each, and long-lived ones.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use super::cluster::Cluster;
use super::switch::program;
use crate::programs::load::Tally;
use crate::programs::port;

/// How many connections there are at a time that are kept.
pub(super) const LONG_LIVED: &str = "20";
/// For how many seconds a load lasts unless it is told that it is enough, and what it may take beyond.
const SECONDS: u64 = 450;
const BEYOND: u64 = 40;
/// Attempts a second of each load.
const RATE: u32 = 50;
/// Where a client sees that it is enough.
const ENOUGH: &str = "/tmp/under-load";

/// What became of the attempts.
pub(super) struct Attempts {
    /// Of a sidecar's client to an ambient server, a connection for each.
    pub(super) to_node: anyhow::Result<Tally>,
    /// Of an ambient client to a sidecar's server, a connection for each.
    pub(super) to_sidecar: anyhow::Result<Tally>,
    /// Over connections between node proxies that are kept.
    pub(super) established: anyhow::Result<Tally>,
}

/// Does something under load; what came of it, and of the attempts.
pub(super) async fn during<T>(
    cluster: &Cluster,
    act: impl AsyncFnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(anyhow::Result<T>, Attempts)> {
    let ambient = target(cluster, "ambient", "n2").await?;
    let sidecar = target(cluster, "sidecar", "n3").await?;
    let flags = ["sidecar", "ambient"].map(|client| flag(client, ENOUGH));
    let flags = flags.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    for flag in &flags {
        // Of a load before; as a rule there is none.
        let _ = tokio::fs::remove_file(flag).await;
    }
    let acting = async {
        let acted = act().await;
        for flag in &flags {
            tokio::fs::write(flag, "").await?;
        }
        anyhow::Ok(acted)
    };
    let (to_node, to_sidecar, established, acted) = tokio::join!(
        load(cluster, "sidecar", &ambient, "0", RATE, ENOUGH),
        load(cluster, "ambient", &sidecar, "0", RATE, ENOUGH),
        load(cluster, "ambient", &ambient, LONG_LIVED, RATE, ENOUGH),
        acting,
    );
    let attempts = Attempts {
        to_node,
        to_sidecar,
        established,
    };
    Ok((acted?, attempts))
}

/// Whether all attempts were served, and at least `least` were made.
pub(super) fn unharmed(tally: Tally, least: u64) -> anyhow::Result<Tally> {
    ensure!(tally.attempted >= least && tally.lost() == 0, "{tally}");
    Ok(tally)
}

/// The same, and no connection ended.
pub(super) fn undisturbed(tally: Tally, least: u64) -> anyhow::Result<Tally> {
    ensure!(tally.connections_lost == 0, "{tally}");
    unharmed(tally, least)
}

/// Whether of the answers only those are missing that connections waited for which outlived a drain.
pub(super) fn ended(tally: Tally) -> anyhow::Result<Tally> {
    ensure!(
        tally.served > 0 && tally.lost() <= tally.connections_lost && tally.refused + tally.late == 0,
        "{tally}"
    );
    Ok(tally)
}

/// The server of a namespace on a node.
pub(super) async fn target(cluster: &Cluster, namespace: &str, node: &str) -> anyhow::Result<String> {
    let address = cluster.address(namespace, "server", node).await?;
    Ok(format!("{address}:{}", port::HTTP))
}

/// What a client sees as `enough`, from here.
pub(super) fn flag(client: &str, enough: &str) -> anyhow::Result<PathBuf> {
    let process = program(&format!("{client}/client"))?;
    Ok(PathBuf::from(format!("/proc/{process}/root{enough}")))
}

/// A load until its client sees that it is enough.
pub(super) async fn load(
    cluster: &Cluster,
    client: &str,
    target: &str,
    connections: &str,
    rate: u32,
    enough: &str,
) -> anyhow::Result<Tally> {
    let (rate, seconds) = (rate.to_string(), SECONDS.to_string());
    let load = ["load", "--target", target, "--rate", &rate, "--seconds", &seconds];
    let until = ["--until", enough, "--connections", connections];
    let limit = Duration::from_secs(SECONDS + BEYOND);
    cluster
        .program_in(client, "client", &[&load[..], &until].concat(), limit)
        .await
}
