//! What a ConfigMap says of a waypoint is taken, refused whole where it is not understood, and forgotten with it.

use std::time::Duration;

use anyhow::ensure;

use super::super::cluster::Cluster;
use crate::mesh::eventually;
use crate::programs::call::Target;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 3;
/// How long what was said may take to be so: the cluster's autoscaler looks every 15 s.
const SOON: Duration = Duration::from_secs(60);
const MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: parameters, namespace: shop}
data: DATA
";
const NAMED: &str =
    r#"{"spec":{"infrastructure":{"parametersRef":{"group":"","kind":"ConfigMap","name":"parameters"}}}}"#;
const UNNAMED: &str = r#"{"spec":{"infrastructure":null}}"#;

pub(super) async fn run(cluster: &Cluster, report: &mut Report, web: Target) -> anyhow::Result<()> {
    let data = r#"{autoscaling-min: "2", autoscaling-max: "3", log-level: debug}"#;
    cluster.apply(&MAP.replace("DATA", data)).await?;
    name(cluster, NAMED).await?;
    report.check(
        "a waypoint's parameters are taken, and its autoscaler is its Gateway's",
        taken(cluster).await,
    );
    cluster
        .apply(&MAP.replace("DATA", r#"{autoscaling-max: "many"}"#))
        .await?;
    report.check(
        "parameters that are not understood are refused, and the waypoint serves as before",
        refused(cluster, web).await,
    );
    name(cluster, UNNAMED).await?;
    cluster
        .kubectl(&["delete", "-n", "shop", "configmap/parameters"])
        .await?;
    report.check(
        "without parameters there is no autoscaler, and nothing is refused",
        forgotten(cluster).await,
    );
    Ok(())
}

async fn name(cluster: &Cluster, patch: &str) -> anyhow::Result<()> {
    let patch = [
        "patch",
        "-n",
        "shop",
        "gateway/waypoint",
        "--type=merge",
        "-p",
        patch,
    ];
    cluster.kubectl(&patch).await.map(drop)
}

async fn read(cluster: &Cluster, object: &str, path: &str) -> anyhow::Result<String> {
    let path = format!("jsonpath={path}");
    cluster.kubectl(&["get", "-n", "shop", object, "-o", &path]).await
}

/// Of the Gateway: whether it is accepted, why, and of which generation that is said.
async fn accepted(cluster: &Cluster) -> anyhow::Result<String> {
    let of = "{.status.conditions[?(@.type==\"Accepted\")]";
    let path = format!("{of}.status}} {of}.reason}} {of}.observedGeneration}}/{{.metadata.generation}}");
    read(cluster, "gateway/waypoint", &path).await
}

async fn taken(cluster: &Cluster) -> anyhow::Result<String> {
    let uid = read(cluster, "gateway/waypoint", "{.metadata.uid}").await?;
    eventually(SOON, async || {
        let path = "{.metadata.ownerReferences[*].uid} {.spec.minReplicas} {.spec.maxReplicas}";
        let autoscaler = read(cluster, "hpa/waypoint", path).await?;
        ensure!(autoscaler == format!("{uid} 2 3"), "{autoscaler:?}");
        let arguments = "{.spec.template.spec.containers[0].args}";
        let arguments = read(cluster, "deployment/waypoint", arguments).await?;
        ensure!(arguments.contains("--log-level=debug"), "{arguments}");
        let ready = "{.spec.replicas} {.status.updatedReplicas} {.status.readyReplicas}";
        let ready = read(cluster, "deployment/waypoint", ready).await?;
        ensure!(ready == "2 2 2", "{ready} pods");
        Ok("2 pods, which nobody but the autoscaler asked for")
    })
    .await
    .map(str::to_owned)
}

async fn refused(cluster: &Cluster, web: Target) -> anyhow::Result<String> {
    let generation = read(cluster, "deployment/waypoint", "{.metadata.generation}").await?;
    let said = eventually(SOON, async || {
        let said = accepted(cluster).await?;
        let (said, of) = said.rsplit_once(' ').unwrap_or_default();
        ensure!(said == "False InvalidParameters", "{said:?}");
        let current = of.split_once('/').is_some_and(|(observed, now)| observed == now);
        ensure!(current, "said of generation {of}");
        Ok(said.to_owned())
    })
    .await?;
    let calls = cluster.call("ambient", web, 20).await?;
    ensure!(calls.served() == 20, "{:?}", calls.outcomes);
    let now = read(cluster, "deployment/waypoint", "{.metadata.generation}").await?;
    ensure!(
        now == generation,
        "its Deployment was changed: {generation}, then {now}"
    );
    Ok(format!("{said}; 20 of 20 served meanwhile"))
}

async fn forgotten(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(SOON, async || {
        let get = ["get", "hpa", "-n", "shop", "-o", "name"];
        let left = cluster.kubectl(&get).await?;
        ensure!(left.is_empty(), "{left}");
        let said = accepted(cluster).await?;
        ensure!(said.starts_with("True Accepted"), "{said}");
        Ok("gone".to_owned())
    })
    .await
}
