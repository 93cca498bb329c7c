//! The node proxy's container dies by a signal, and what is in it for want of memory, while it carries a
//! thousand connections: every attempt made meanwhile waits and is served; what was in flight or established
//! ends with its carrier and is counted.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::Cluster;
use super::proxy::{Container, Ending};
use super::switch::program;
use crate::mesh::eventually;
use crate::programs::load::Tally;
use crate::programs::port;
use crate::programs::session::Outcome;
use crate::report::Report;

#[cfg(test)]
mod tests;

/// Long-lived connections, and how many of them must be seen on the process before it ends.
const CROWD: (&str, usize) = ("1000", 900);
/// Attempts a second, for 15 s, and the fewest that each load must have made.
const ATTEMPTS: (u64, u64) = (50, 700);
/// The most attempts of a load that may be in flight, and how old they may be, in milliseconds, as the process begins to
/// fail: what is in flight for longer was not being served.
const IN_FLIGHT: (u64, u64) = (10, 1000);
/// How long after the crowd is there it may still be in the way of others: those whose first segment found no room sent it
/// again after 1 s, and after 2 s once more (RFC 6298, sections 2.1 and 5.5).
const SETTLES: Duration = Duration::from_secs(3);
/// How long a load may take: the last attempts may have to wait.
const LIMIT: Duration = Duration::from_secs(120);

/// How the process ends, and what that may cost.
struct Fate {
    name: &'static str,
    starved: bool,
    /// How long nothing can have been served at least, in milliseconds: an attempt that was made meanwhile waited
    /// that long.
    waited: u64,
}

const FATES: [Fate; 2] = [
    Fate {
        name: "the node proxy's container is killed",
        starved: false,
        waited: 100,
    },
    Fate {
        name: "the node proxy runs out of memory",
        starved: true,
        waited: 50,
    },
];

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for fate in &FATES {
        meets(cluster, report, fate).await?;
    }
    Ok(())
}

async fn meets(cluster: &Cluster, report: &mut Report, fate: &Fate) -> anyhow::Result<()> {
    let near = cluster.address("ambient", "server", "n1").await?;
    let far = cluster.address("ambient", "server", "n2").await?;
    let inhabitant = cluster
        .of_set("ambient", "server", "n2", "{.items[0].metadata.name}")
        .await?;
    let restarts = restarts(cluster).await?;
    let loads = async {
        tokio::join!(
            attempts(cluster, "sidecar", "client", &far),
            attempts(cluster, "ambient", "client", &far),
            attempts(cluster, "ambient", &inhabitant, &near),
            crowd(cluster, &far),
        )
    };
    let ending = async {
        let server = program("ambient/n2")?;
        let container = Container::on("n2")?;
        established(&container, server).await?;
        tokio::time::sleep(SETTLES).await;
        let ending = if fate.starved {
            container.starve(server).await?
        } else {
            container.kill(server)?
        };
        anyhow::Ok(ending)
    };
    let (tallies, ending) = tokio::join!(loads, ending);
    let ending = ending.context(fate.name)?;
    let carried = had_connections(cluster, &ending, (!fate.starved).then_some(restarts)).await;
    report.check(fate.name, carried);
    for (route, tally) in [
        ("a sidecar's client on the other node", tallies.0),
        ("an ambient client on the other node", tallies.1),
        ("a client on the node itself", tallies.2),
    ] {
        let result = tally.and_then(|tally| none_refused(&tally, &ending, fate));
        report.check(format!("{}, attempts of {route}", fate.name), result);
    }
    let ended = tallies.3.and_then(|tally| all_ended(&tally));
    report.check(format!("{}, what was established", fate.name), ended);
    Ok(())
}

async fn attempts(cluster: &Cluster, namespace: &str, pod: &str, address: &str) -> anyhow::Result<Tally> {
    let target = format!("{address}:{}", port::HTTP);
    let load = [
        "load",
        "--target",
        &target,
        "--rate",
        &ATTEMPTS.0.to_string(),
        "--seconds",
        "15",
        "--limit",
        "60",
    ];
    cluster.program_in(namespace, pod, &load, LIMIT).await
}

/// Long-lived connections, until the carrier of the last has ended.
async fn crowd(cluster: &Cluster, address: &str) -> anyhow::Result<Tally> {
    let target = format!("{address}:{}", port::HTTP);
    let load = ["load", "--target", &target, "--rate", "200", "--seconds", "40"];
    let load = [&load[..], &["--connections", CROWD.0]].concat();
    cluster.program_in("ambient", "client", &load, LIMIT).await
}

/// Waits until the container carries the crowd.
async fn established(container: &Container, server: u32) -> anyhow::Result<()> {
    eventually(Duration::from_secs(20), async || {
        let carried: usize = container
            .carried(server)?
            .iter()
            .map(|(_, carried)| carried)
            .sum();
        ensure!(carried >= CROWD.1, "the node proxy carries {carried} connections");
        Ok(())
    })
    .await
}

/// What ended carried connections, as the kernel knew it; where the container ended, it is back.
async fn had_connections(
    cluster: &Cluster,
    ending: &Ending,
    restarts_before: Option<u64>,
) -> anyhow::Result<String> {
    ensure!(ending.carried >= CROWD.1, "{ending:?}");
    let mut seen = format!(
        "{} process(es) ended with {} connections",
        ending.processes, ending.carried
    );
    if let Some(before) = restarts_before {
        eventually(Duration::from_secs(60), async || {
            let after = restarts(cluster).await?;
            ensure!(after > before, "the container has not been started again");
            Ok(())
        })
        .await?;
        seen += ", and the container was started again";
    }
    Ok(seen)
}

/// Attempts that began after the end are all served. One that was in flight may have ended with its carrier,
/// as what is established does; none may be refused or late.
fn none_refused(tally: &Tally, ending: &Ending, fate: &Fate) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= ATTEMPTS.1,
        "only {} attempts were made",
        tally.attempted
    );
    // Others have waited too: for the crowd, as it opened its connections.
    let meanwhile = tally.waited.iter().filter(|one| one.ended >= ending.after);
    let waited = meanwhile.map(|one| one.ended - one.begun).max().unwrap_or(0);
    ensure!(
        waited >= fate.waited,
        "no attempt was made meanwhile: {tally}; of those that the end met the slowest waited {waited} ms"
    );
    for attempt in &tally.unserved {
        let in_flight = attempt.begun <= ending.after
            && attempt.ended >= ending.before
            && attempt.begun + IN_FLIGHT.1 >= ending.failing;
        let broken = match &attempt.outcome {
            Outcome::Reset | Outcome::Closed => true,
            // A client's sidecar reads HTTP, and says so in it.
            Outcome::Failed(status) => status.starts_with("status 502 "),
            _ => false,
        };
        ensure!(
            in_flight && broken,
            "begun {} ms after the end, {attempt}; {tally}",
            i128::from(attempt.begun) - i128::from(ending.after)
        );
    }
    let ended = tally.unserved.len();
    // And what it took while it had nothing to serve it with.
    let failed_for = ending.after - ending.failing;
    let most = IN_FLIGHT.0 + ATTEMPTS.0 * failed_for / 1000;
    ensure!(
        ended as u64 <= most,
        "{ended} in flight, after it failed for {failed_for} ms: {tally}"
    );
    Ok(format!(
        "{} of {} served, among them all that began after the end; {ended} in flight ended with it; the slowest \
         of those that it met waited {waited} ms",
        tally.served, tally.attempted
    ))
}

/// Connections that were established end with what carried them, and the client is told of each.
fn all_ended(tally: &Tally) -> anyhow::Result<String> {
    ensure!(
        tally.connections_lost >= CROWD.1 as u64 && tally.refused == 0 && tally.late == 0,
        "{tally}"
    );
    Ok(format!(
        "{} of {} ended with it, after {} answers",
        tally.connections_lost, tally.connections, tally.served
    ))
}

async fn restarts(cluster: &Cluster) -> anyhow::Result<u64> {
    let what = "{.items[0].status.containerStatuses[0].restartCount}";
    let count = cluster.of_set("trefoil-system", "trefoil-node", "n2", what);
    count.await?.trim().parse().context("the restart count")
}
