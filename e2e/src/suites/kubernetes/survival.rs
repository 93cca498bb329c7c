//! The node proxy's container dies, by a signal and for want of memory: connections made meanwhile wait.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Cluster, nothing_lost};
use crate::mesh::eventually;
use crate::programs::load::Tally;
use crate::programs::port;
use crate::report::Report;

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let target = format!(
        "{}:{}",
        cluster.address("ambient", "server", "n2").await?,
        port::HTTP
    );
    for (name, death) in [("SIGKILL", KILL), ("out of memory", STARVE)] {
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
        let load = cluster.client::<Tally>("sidecar", &load);
        let (tally, died) = tokio::join!(load, die(cluster, death));
        report.check(format!("the node proxy's container ends: {name}"), died);
        let result = tally.and_then(|tally| nothing_lost(&tally, 700));
        report.check(format!("load across its end: {name}"), result);
    }
    Ok(())
}

/// All processes of the container at once, as the runtime would kill it.
const KILL: &str = "kill -9 $(cat $group/cgroup.procs)";
/// The kernel's own choice, by a limit below what is in use.
const STARVE: &str = "echo 2M >$group/memory.limit_in_bytes || echo 0 >$group/memory.force_empty || true";

async fn die(cluster: &Cluster, death: &str) -> anyhow::Result<String> {
    let before = restarts(cluster).await?;
    let script = format!(
        "process=$(pgrep -f '^/trefoil-node run' | head -1); \
         group=/sys/fs/cgroup/memory$(sed -n 's/.*:memory://p' /proc/$process/cgroup); {death}"
    );
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
    cluster
        .kubectl(&get)
        .await?
        .trim()
        .parse()
        .context("the restart count")
}
