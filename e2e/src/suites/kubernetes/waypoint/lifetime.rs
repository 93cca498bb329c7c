//! A waypoint is scaled, loses one of two pods, and goes with its Gateway, under load at a fixed rate without
//! retries in the client.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::super::cluster::Cluster;
use super::super::ctl::told;
use super::objects;
use crate::kernel::running;
use crate::mesh::eventually;
use crate::mesh::processes::signal;
use crate::programs::call::Target;
use crate::programs::load::Tally;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 7;
/// How long a load may take, beyond what it gives itself.
const LIMIT: Duration = Duration::from_secs(120);
/// Requests that a process may have had in its hands.
const IN_FLIGHT: u64 = 2;
const OWN: &str = "gateway.networking.k8s.io/gateway-name=waypoint";

pub(super) async fn run(cluster: &Cluster, report: &mut Report, web: Target) -> anyhow::Result<()> {
    report.check(
        "a waypoint is scaled by whoever scales Deployments",
        scaled(cluster).await,
    );
    let deleting = under_load(cluster, web, "15", async || delete_one(cluster).await).await;
    report.check(
        "one of two pods of a waypoint is deleted under load",
        deleting.and_then(|tallies| unharmed(&tallies, 0)),
    );
    let killing = under_load(cluster, web, "11", async || kill_one()).await;
    report.check(
        "one of two pods of a waypoint is killed under load: what was in flight is counted, nothing else fails",
        // A connection for each request: of the others those end that it carried.
        killing.and_then(|tallies| unharmed(&tallies[..1], IN_FLIGHT)),
    );
    let removing = under_load(cluster, web, "12", async || {
        told(cluster, &["waypoint", "delete", "--namespace", "shop"])
            .await
            .map(drop)
    });
    report.check(
        "a waypoint is removed under load",
        removing.await.and_then(|tallies| unharmed(&tallies, 0)),
    );
    let again = told(cluster, &["waypoint", "apply", "--namespace", "shop"]).await;
    report.check(
        "a waypoint of the name of one that goes is made",
        again.and_then(|shown| {
            ensure!(shown["programmed"] == true, "{shown}");
            Ok("programmed")
        }),
    );
    report.check(
        "trefoilctl waypoint scale decides where it was used",
        stated(cluster).await,
    );
    told(cluster, &["waypoint", "delete", "--namespace", "shop"]).await?;
    report.check("nothing of a waypoint outlives its Gateway", gone(cluster).await);
    Ok(())
}

/// Two pods on two nodes, shown as two.
async fn scaled(cluster: &Cluster) -> anyhow::Result<String> {
    let scale = ["scale", "-n", "shop", "deployment/waypoint", "--replicas=2"];
    cluster.kubectl(&scale).await?;
    let status = [
        "rollout",
        "status",
        "-n",
        "shop",
        "deployment/waypoint",
        "--timeout=60s",
    ];
    cluster.kubectl(&status).await?;
    let path = "jsonpath={.items[*].spec.nodeName}";
    let get = ["get", "pods", "-n", "shop", "-l", OWN, "-o", path];
    // Those of before drain.
    eventually(Duration::from_secs(45), async || {
        let nodes = cluster.kubectl(&get).await?;
        let mut nodes: Vec<&str> = nodes.split_whitespace().collect();
        nodes.sort_unstable();
        ensure!(nodes.len() == 2 && nodes[0] != nodes[1], "they run on {nodes:?}");
        Ok(())
    })
    .await?;
    let shown = told(cluster, &["waypoint", "status", "--namespace", "shop"]).await?;
    ensure!(shown["replicas"] == 2, "{shown}");
    Ok("2 pods on 2 nodes".into())
}

/// What a Gateway says of replicas is so, whatever its Deployment said.
async fn stated(cluster: &Cluster) -> anyhow::Result<String> {
    let scale = ["waypoint", "scale", "--namespace", "shop", "--replicas", "3"];
    told(cluster, &scale).await?;
    eventually(Duration::from_secs(10), async || {
        let get = [
            "get",
            "-n",
            "shop",
            "deployment/waypoint",
            "-o",
            "jsonpath={.spec.replicas}",
        ];
        let replicas = cluster.kubectl(&get).await?;
        ensure!(replicas == "3", "{replicas} replicas");
        Ok("3 replicas".to_owned())
    })
    .await
}

/// Two loads around something that is done: a connection for each request, and long-lived ones.
async fn under_load(
    cluster: &Cluster,
    web: Target,
    seconds: &str,
    act: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<[Tally; 2]> {
    let target = web.address.to_string();
    let load = async |client: &str, connections: &str| -> anyhow::Result<Tally> {
        let load = [
            "load",
            "--target",
            &target,
            "--rate",
            "50",
            "--seconds",
            seconds,
            "--connections",
            connections,
        ];
        cluster.program_in(client, "client", &load, LIMIT).await
    };
    let acting = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        act().await
    };
    let (short, long, acted) = tokio::join!(load("sidecar", "0"), load("ambient", "20"), acting);
    acted?;
    Ok([short?, long?])
}

fn unharmed(tallies: &[Tally], allowed: u64) -> anyhow::Result<String> {
    let mut words = Vec::new();
    for tally in tallies {
        ensure!(tally.attempted >= 500, "only {} attempts", tally.attempted);
        ensure!(tally.lost() <= allowed, "{tally}");
        words.push(tally.to_string());
    }
    Ok(words.join(" · "))
}

async fn delete_one(cluster: &Cluster) -> anyhow::Result<()> {
    let path = "jsonpath={.items[0].metadata.name}";
    let pod = cluster
        .kubectl(&["get", "pods", "-n", "shop", "-l", OWN, "-o", path])
        .await?;
    cluster
        .kubectl(&["delete", "pod", "-n", "shop", "--wait=false", &pod])
        .await
        .map(drop)
}

fn kill_one() -> anyhow::Result<()> {
    let running = running("trefoil-waypoint", Some("run"))?;
    ensure!(running.len() == 2, "{} processes of waypoints", running.len());
    signal(running[0], Signal::KILL)
}

async fn gone(cluster: &Cluster) -> anyhow::Result<String> {
    // Its pods have half a minute for what they carry.
    eventually(Duration::from_secs(60), async || {
        let left = objects(cluster).await?;
        ensure!(left.is_empty(), "left: {left:?}");
        let account = [
            "get",
            "serviceaccounts,services,deployments",
            "-n",
            "shop",
            "-o",
            "name",
        ];
        let left = cluster.kubectl(&account).await?;
        ensure!(!left.contains("waypoint"), "left: {left}");
        Ok("no Deployment, ReplicaSet, Service, account or pod".to_owned())
    })
    .await
}
