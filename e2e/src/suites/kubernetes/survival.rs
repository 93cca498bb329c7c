//! The node proxy's container dies by a signal, and what is in it for want of memory: connections made
//! meanwhile wait.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::Cluster;
use crate::mesh::eventually;
use crate::programs::load::Tally;
use crate::programs::port;
use crate::report::Report;

/// Where the control group of the container is, on its node.
const GROUP: &str = "process=$(pgrep -f '^/trefoil-node run' | head -1); \
     group=/sys/fs/cgroup/memory$(sed -n 's/.*:memory://p' /proc/$process/cgroup)";

/// Takes away what is not in use until the kernel has killed something, then gives it back.
const STARVE: &str = "
kills() { sed -n 's/^oom_kill //p' $group/memory.oom_control; }
before=$(kills)
limit=$(sed -n 's/^total_rss //p' $group/memory.stat)
until echo $limit >$group/memory.limit_in_bytes; do limit=$((limit + 262144)); done 2>/dev/null
for wait in $(seq 200); do
  [ $(kills) -gt $before ] && break
  sleep 0.1
done
echo -1 >$group/memory.limit_in_bytes
echo $(($(kills) - before))";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let address = cluster.address("ambient", "server", "n2").await?;
    let target = format!("{address}:{}", port::HTTP);
    let load = [
        "load",
        "--target",
        &target,
        "--rate",
        "50",
        "--seconds",
        "15",
        "--limit",
        "30",
    ];
    let attempts = cluster.client::<Tally>("sidecar", &load);
    let (tally, died) = tokio::join!(attempts, container_is_killed(cluster));
    report.check("the node proxy's container is killed", died);
    // 50 attempts a second that take milliseconds: one kill finds no more than two of them in flight.
    let result = tally.and_then(|tally| only_in_flight_ended(&tally, 2));
    report.check("load while the node proxy's container is killed", result);

    let attempts = cluster.client::<Tally>("sidecar", &load);
    let crowd = [
        "load",
        "--target",
        &target,
        "--rate",
        "300",
        "--seconds",
        "12",
        "--connections",
        "1000",
    ];
    let crowd = cluster.client::<Tally>("ambient", &crowd);
    let starving = async {
        let told = cluster
            .on("n2", &["sh", "-c", &format!("{GROUP}\n{STARVE}")], None)
            .await?;
        let kills: u64 = told.trim().parse().context("the count of kills")?;
        ensure!(kills > 0, "the kernel killed nothing");
        Ok(format!(
            "the kernel killed {kills} process(es) for want of memory"
        ))
    };
    let (tally, crowd, starved) = tokio::join!(attempts, crowd, starving);
    report.check("the node proxy runs out of memory", starved);
    let result = tally.and_then(|tally| only_in_flight_ended(&tally, 10));
    report.check("load while the node proxy runs out of memory", result);
    report.check("what was established then is counted", crowd);
    Ok(())
}

/// Attempts in flight at that moment may end with what carried them; none may be refused, none late.
fn only_in_flight_ended(tally: &Tally, in_flight: u64) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= 700,
        "only {} attempts were made",
        tally.attempted
    );
    ensure!(
        tally.refused == 0 && tally.late == 0 && tally.lost() <= in_flight,
        "{tally}"
    );
    Ok(tally.to_string())
}

/// All processes of the container at once, as the runtime would kill it.
async fn container_is_killed(cluster: &Cluster) -> anyhow::Result<String> {
    let before = restarts(cluster).await?;
    let script = format!("{GROUP}; kill -9 $(cat $group/cgroup.procs)");
    cluster.on("n2", &["sh", "-c", &script], None).await?;
    eventually(Duration::from_secs(60), async || {
        let after = restarts(cluster).await?;
        ensure!(after > before, "the container has not been started again");
        Ok(format!("started again {} time(s)", after - before))
    })
    .await
}

async fn restarts(cluster: &Cluster) -> anyhow::Result<u64> {
    let path = "jsonpath={.items[0].status.containerStatuses[0].restartCount}";
    let get = [
        "get",
        "pods",
        "-n",
        "trefoil-system",
        "-l",
        "app=trefoil-node",
        "--field-selector",
        "spec.nodeName=n2",
        "-o",
        path,
    ];
    let count = cluster.kubectl(&get).await?;
    count.trim().parse().context("the restart count")
}
