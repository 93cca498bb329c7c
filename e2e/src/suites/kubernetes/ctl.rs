//! `trefoilctl` on a real cluster, where it reaches the planes through the API server alone: what it shows, and
//! what `why` says of pairs that work and of pairs that do not.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::cluster::{Cluster, LIMIT};
use super::{NODES, policy};
use crate::mesh::eventually;
use crate::programs::port;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 14;
/// Where it is put on the first node.
pub(super) const PROGRAM: &str = "/root/trefoilctl";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    install(&cluster.script).await?;
    report.check("trefoilctl status", status(cluster).await);
    report.check("trefoilctl get", get(cluster).await);
    report.check("trefoilctl config POD", config(cluster).await);
    report.check("trefoilctl check, of a mesh without faults", sound(cluster).await);
    for client in ["sidecar", "ambient"] {
        pairs(cluster, report, client).await?;
    }
    strict(cluster, report).await
}

/// Puts the program that lies beside this one on a node: the cluster's network is not this machine's.
async fn install(script: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name("trefoilctl");
    let program = tokio::fs::read(&program)
        .await
        .with_context(|| program.display().to_string())?;
    let write = format!("cat >{PROGRAM} && chmod 0755 {PROGRAM}");
    let mut child = Command::new(script)
        .args(["exec", "n1", "sh", "-c", &write])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("the node takes no input")?;
    input.write_all(&program).await?;
    drop(input);
    let exit = tokio::time::timeout(LIMIT, child.wait()).await??;
    ensure!(exit.success(), "putting trefoilctl on a node: {exit}");
    Ok(())
}

/// What it prints, whatever its exit code: where something is wrong that is not zero.
pub(super) async fn told(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Value> {
    let run = ["sh", "-c", "\"$@\" || [ $? = 1 ]", "sh", PROGRAM, "-o", "json"];
    let said = cluster.on("n1", &[&run[..], arguments].concat(), None).await?;
    serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn status(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let status = told(cluster, &["status"]).await?;
        let planes = list(&status, "planes");
        for (role, count) in [
            ("control plane", 2),
            ("agent", NODES.len()),
            ("node proxy", NODES.len()),
        ] {
            let ready = |plane: &&Value| plane["role"] == role && plane["ready"] == true;
            let found = planes.iter().filter(ready).count();
            ensure!(found == count, "{found} of {count} {role}s are ready: {status}");
        }
        let sidecars = planes.iter().filter(|plane| plane["role"] == "sidecar").count();
        ensure!(sidecars >= 3, "{sidecars} sidecars");
        let away = planes
            .iter()
            .find(|plane| plane["role"] != "control plane" && plane["connected_or_away_seconds"].is_null());
        ensure!(away.is_none(), "it is not said since when: {away:?}");
        Ok(format!("{} planes", planes.len()))
    })
    .await
}

async fn get(cluster: &Cluster) -> anyhow::Result<String> {
    let pods = told(cluster, &["get", "pods,services", "-n", "ambient"]).await?;
    let named = |kind: &str| {
        list(&pods, "items")
            .iter()
            .filter(|one| one["kind"] == kind)
            .count()
    };
    let (pods, services) = (named("Pod"), named("Service"));
    ensure!(pods >= 5 && services >= 2, "{pods} pods and {services} services");
    Ok(format!("{pods} pods and {services} services"))
}

async fn config(cluster: &Cluster) -> anyhow::Result<String> {
    let mut said = Vec::new();
    for (namespace, plane) in [("sidecar", "sidecar"), ("ambient", "node")] {
        let config = told(cluster, &["config", &format!("{namespace}/client")]).await?;
        ensure!(config["redirection"] == plane, "{config}");
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/client");
        ensure!(config["workload"]["identity"] == *identity, "{config}");
        let held = list(&config, "certificates");
        ensure!(held.iter().any(|one| one["state"] == "valid"), "{config}");
        said.push(identity);
    }
    Ok(said.join(", "))
}

async fn sound(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let findings = told(cluster, &["check"]).await?;
        ensure!(findings.as_array().is_some_and(Vec::is_empty), "{findings}");
        Ok("nothing is found".to_owned())
    })
    .await
}

/// A pair that works, and one fault after the other.
async fn pairs(cluster: &Cluster, report: &mut Report, client: &str) -> anyhow::Result<()> {
    let server = format!("ambient/{}", server_on(cluster, "ambient", "n2").await?);
    let (open, closed) = (format!("{server}:{}", port::TCP), format!("{server}:7777"));
    let result = why(cluster, client, &open, None, "connection was made").await;
    report.check(format!("why {client} → ambient: no fault"), result);

    cluster.apply(&policy("ambient", "Deny", client)).await?;
    let result = why(cluster, client, &open, Some("policy"), "ambient/smoke").await;
    report.check(format!("why {client} → ambient: denied by policy"), result);
    cluster
        .kubectl(&["delete", "authorizationpolicy", "-n", "ambient", "smoke"])
        .await?;
    why(cluster, client, &open, None, "connection was made").await?;

    let result = why(cluster, client, &closed, Some("application"), "7777").await;
    report.check(
        format!("why {client} → ambient: the application is closed"),
        result,
    );

    let nobody = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: nobody, namespace: {client}}}\n\
         spec: {{selector: {{app: nobody}}, ports: [{{port: 80}}]}}\n"
    );
    cluster.apply(&nobody).await?;
    let result = why(cluster, client, "svc/nobody", Some("endpoint"), "").await;
    report.check(format!("why {client} → a service over nobody"), result);
    cluster
        .kubectl(&["delete", "service", "-n", client, "nobody"])
        .await?;
    Ok(())
}

/// A client without a plane: its server's plane says what becomes of it, and the remedy is a plane.
async fn strict(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let server = format!(
        "ambient/{}:{}",
        server_on(cluster, "ambient", "n2").await?,
        port::TCP
    );
    let result = why(cluster, "none", &server, None, "connection was made").await;
    report.check("why none → ambient: no fault", result);
    cluster
        .apply(
            "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
             metadata: {name: strict, namespace: ambient}\nspec: {mtls: Strict}\n",
        )
        .await?;
    let result = async {
        let why = why(cluster, "none", &server, Some("policy"), "strict").await?;
        ensure!(why.contains("dataplane-mode"), "the remedy is no plane: {why}");
        Ok(why)
    };
    report.check("why none → ambient under Strict", result.await);
    cluster
        .kubectl(&["delete", "peerauthentication", "-n", "ambient", "strict"])
        .await?;
    Ok(())
}

/// The name of the pod of the server's set on a node.
async fn server_on(cluster: &Cluster, namespace: &str, node: &str) -> anyhow::Result<String> {
    let field = format!("spec.nodeName={node}");
    let path = "jsonpath={.items[0].metadata.name}";
    let which = ["-l", "app=server", "--field-selector", &field, "-o", path];
    let get = [&["get", "pods", "-n", namespace], &which[..]].concat();
    cluster.kubectl(&get).await
}

/// That `why` names this layer, or none, for a reason that mentions this; the planes may have to hear of it first.
async fn why(
    cluster: &Cluster,
    client: &str,
    server: &str,
    layer: Option<&str>,
    mention: &str,
) -> anyhow::Result<String> {
    eventually(Duration::from_secs(15), async || {
        let why = told(cluster, &["why", &format!("{client}/client"), server]).await?;
        let reason = why["reason"].as_str().unwrap_or_default();
        ensure!(
            why["layer"].as_str() == layer && reason.contains(mention),
            "{why}"
        );
        ensure!((why["well"] == true) == layer.is_none(), "{why}");
        let remedy = why["remedy"].as_str().unwrap_or_default();
        ensure!(layer.is_none() || !remedy.is_empty(), "no remedy: {why}");
        Ok(format!("{}: {reason} {remedy}", layer.unwrap_or("well")))
    })
    .await
}
