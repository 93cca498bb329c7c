//! A node's power is cut, without a drain and with all that its network held, and comes back: what runs elsewhere
//! notices nothing, every pod of the node starts again on its plane, and none is open to strangers before it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::pods::strict;
use super::{Cluster, cell, on_plane, policy, verdict};
use crate::mesh::eventually;
use crate::programs::load::Tally;
use crate::programs::session::Protocol;
use crate::report::Report;
use crate::suites::switch::{Ground, Route};

/// How many checks it makes.
pub(super) const CHECKS: usize = 13;
const NODE: &str = "n2";
const NAMESPACES: [&str; 2] = ["sidecar", "ambient"];
/// How long it is dark, and may take until everything on it runs again.
const DARK: Duration = Duration::from_secs(5);
const BACK: Duration = Duration::from_secs(180);
/// Attempts a second of each load, and for how many seconds if nobody says that it is enough.
const RATE: &str = "25";
const SECONDS: &str = "240";
const LIMIT: Duration = Duration::from_secs(300);

/// A pod whose address is known to everybody from its first moment on, ready or not.
const OPEN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cut, namespace: NAMESPACE, labels: {app: cut}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers:
  - {name: cut, image: 'kube.test/trefoil-e2e:1', imagePullPolicy: Never, args: [serve, --name=NAMESPACE/cut]}
---
apiVersion: v1
kind: Service
metadata: {name: cut, namespace: NAMESPACE}
spec: {selector: {app: cut}, publishNotReadyAddresses: true, ports: [{name: http, port: 80, targetPort: 8080}]}
";

/// What kubectl prints of several pods.
#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for namespace in NAMESPACES {
        cluster.apply(&strict(namespace)).await?;
        cluster.apply(&OPEN.replace("NAMESPACE", namespace)).await?;
    }
    cluster.apply(&policy("ambient", "Allow", "sidecar")).await?;
    for namespace in NAMESPACES {
        let wait = [
            "wait",
            "-n",
            namespace,
            "--for=condition=Ready",
            "pod/cut",
            "--timeout=60s",
        ];
        cluster.kubectl(&wait).await?;
    }
    verdict(cluster, "none", "ambient", false).await?;
    let mut flags = Vec::new();
    for client in ["none", "sidecar", "ambient"] {
        flags.push(cluster.flag(client).await?);
    }
    let enough = flags[0].0.clone();
    let cut = async {
        let cut = cut(cluster).await;
        for (_, here) in &flags {
            std::fs::write(here, "").with_context(|| here.display().to_string())?;
        }
        cut
    };
    let (to_sidecar, to_ambient, among_strangers, in_sidecar, in_ambient, cut) = tokio::join!(
        elsewhere(cluster, "ambient", "sidecar", &enough),
        elsewhere(cluster, "sidecar", "ambient", &enough),
        elsewhere(cluster, "none", "none", &enough),
        stranger(cluster, "sidecar", &enough),
        stranger(cluster, "ambient", &enough),
        cut,
    );
    for (_, here) in &flags {
        std::fs::remove_file(here)?;
    }
    report.check("a node comes back from a power cut, with every pod", cut);
    for (name, tally) in [
        ("an ambient client to a sidecar's server", to_sidecar),
        ("a sidecar's client to an ambient server", to_ambient),
        ("neither in the mesh", among_strangers),
    ] {
        let result = tally.and_then(|tally| unharmed(&tally));
        report.check(
            format!("a power cut, attempts between other nodes, {name}"),
            result,
        );
    }
    for (namespace, tally) in [("sidecar", in_sidecar), ("ambient", in_ambient)] {
        let result = tally.and_then(|tally| kept_out(&tally));
        report.check(
            format!("a power cut, a stranger at a pod of {namespace} that starts again"),
            result,
        );
    }
    afterwards(cluster, report).await
}

/// The mesh is on the node as it was.
async fn afterwards(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for (namespace, plane) in [("sidecar", "sidecar"), ("ambient", "node")] {
        let result = on_plane(cluster, namespace, plane).await;
        report.check(
            format!("after a power cut, pods of {namespace} are on their plane"),
            result,
        );
    }
    for (client, wanted) in [("none", false), ("sidecar", true), ("ambient", false)] {
        let result = verdict(cluster, client, "ambient", wanted).await;
        report.check(
            format!("after a power cut, {client} → ambient under the policy of before"),
            result,
        );
    }
    let result = verdict(cluster, "none", "sidecar", false).await;
    report.check("after a power cut, none → sidecar under STRICT", result);
    cluster
        .kubectl(&["delete", "authorizationpolicy", "-n", "ambient", "smoke"])
        .await?;
    verdict(cluster, "ambient", "ambient", true).await?;
    let address = cluster.address("sidecar", "server", NODE).await?;
    let result = cell(cluster, "ambient", &format!("sidecar/{NODE}"), &address).await;
    report.check("after a power cut, ambient → sidecar", result);
    for namespace in NAMESPACES {
        cluster
            .kubectl(&["delete", "pod/cut", "service/cut", "-n", namespace])
            .await?;
    }
    Ok(())
}

/// Off, dark for a while, on; until every container that was on the node is another, and runs.
async fn cut(cluster: &Cluster) -> anyhow::Result<String> {
    let before = containers(cluster).await?;
    ensure!(before.len() >= 10, "only {} pods on {NODE}", before.len());
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.power(false, NODE).await?;
    tokio::time::sleep(DARK).await;
    cluster.power(true, NODE).await?;
    let begun = Instant::now();
    let count = eventually(BACK, async || {
        let after = containers(cluster).await?;
        for (pod, (ready, now)) in &after {
            let (_, then) = before.get(pod).cloned().unwrap_or_default();
            ensure!(*ready, "{pod} is not ready");
            ensure!(now.iter().all(|one| !then.contains(one)), "{pod} runs as before");
        }
        Ok(after.len())
    })
    .await?;
    // Attempts of strangers at what has come last.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(format!(
        "{count} pods run again, {:.1} s after the power was back",
        begun.elapsed().as_secs_f64()
    ))
}

/// The pods of the node by name, whether each is ready, and its containers.
async fn containers(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, (bool, Vec<String>)>> {
    let field = format!("spec.nodeName={NODE}");
    let get = ["get", "pods", "-A", "--field-selector", &field, "-o", "json"];
    let pods: Pods = serde_json::from_str(&cluster.kubectl(&get).await?).context("reading the pods")?;
    let mut found = BTreeMap::new();
    for pod in pods.items {
        let status = pod.status.unwrap_or_default();
        // Done before: nothing of it starts again.
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            continue;
        }
        let ready = status.conditions.iter().flatten();
        let ready = ready
            .filter(|one| one.type_ == "Ready")
            .any(|one| one.status == "True");
        let ids = status.container_statuses.into_iter().flatten();
        let ids = ids.filter_map(|one| one.container_id).collect();
        let (namespace, name) = (pod.metadata.namespace, pod.metadata.name);
        let name = format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default());
        found.insert(name, (ready, ids));
    }
    Ok(found)
}

/// A load between two nodes that keep their power.
async fn elsewhere(
    cluster: &Cluster,
    client: &'static str,
    server: &'static str,
    enough: &str,
) -> anyhow::Result<Tally> {
    let route = Route {
        client,
        server,
        node: "n3",
        protocol: Protocol::H1,
    };
    let load = ["--rate", RATE, "--seconds", SECONDS, "--until", enough];
    Ground::load(cluster, &route, &load).await
}

/// Plaintext at the node's pod, wherever it is now.
async fn stranger(cluster: &Cluster, namespace: &str, enough: &str) -> anyhow::Result<Tally> {
    let target = format!("{}:80", cluster.service(namespace, "cut").await?);
    let load = ["load", "--target", &target, "--rate", RATE, "--seconds", SECONDS];
    // Who waits for long sees less.
    let load = [&load[..], &["--limit", "3", "--until", enough]].concat();
    cluster.program_in("none", "client", &load, LIMIT).await
}

fn unharmed(tally: &Tally) -> anyhow::Result<String> {
    ensure!(tally.attempted >= 300 && tally.lost() == 0, "{tally}");
    Ok(tally.to_string())
}

/// None was let in, and some reached a pod that turned them away: not all of it was the dark.
fn kept_out(tally: &Tally) -> anyhow::Result<String> {
    let refused = tally.refused + tally.reset + tally.closed + tally.failed;
    ensure!(tally.served == 0 && refused >= 50, "{tally}");
    Ok(format!(
        "none of {} let in, {refused} of them turned away",
        tally.attempted
    ))
}
