//! What a pod may ask of Kubernetes and of the mesh at once, under STRICT: probes, ports that are left out, a
//! Job that ends although it has a sidecar, and to be there before its namespace joins.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::Cluster;
use crate::mesh::eventually;
use crate::programs::call::{Calls, Target};
use crate::programs::load::Tally;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

/// How often each is called.
const ATTEMPTS: usize = 5;

/// A pod that kubelet probes every second on a port of the mesh, and that keeps another port out of it.
const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: probed
  namespace: NAMESPACE
  annotations: {trefoil.dev/exclude-inbound-ports: '9000', trefoil.dev/exclude-outbound-ports: '9000'}
spec:
  serviceAccountName: client
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers:
  - name: probed
    image: kube.test/trefoil-e2e:1
    imagePullPolicy: Never
    args: [serve, --name=NAMESPACE/probed]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 2}
";

/// A Job that calls a server of the mesh and ends.
const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: errand, namespace: sidecar}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: errand}}
    spec:
      serviceAccountName: client
      restartPolicy: Never
      containers:
      - name: errand
        image: kube.test/trefoil-e2e:1
        imagePullPolicy: Never
        args: [call, --attempts, '20', TARGET]
";

/// A namespace that is not of the mesh yet.
const LATE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: late}
---
apiVersion: v1
kind: Pod
metadata: {name: early, namespace: late, labels: {app: early}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers:
  - {name: early, image: 'kube.test/trefoil-e2e:1', imagePullPolicy: Never, args: [serve, --name=late/early]}
";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let server = cluster.address("ambient", "server", "n2").await?;
    let target = Target {
        protocol: Protocol::H1,
        address: format!("{server}:{}", port::HTTP).parse()?,
    };
    cluster.apply(LATE).await?;
    for namespace in ["sidecar", "ambient"] {
        // The switch left it there; nothing here is to depend on that.
        cluster.apply(&strict(namespace)).await?;
        cluster.apply(&PROBED.replace("NAMESPACE", namespace)).await?;
    }
    cluster.apply(&JOB.replace("TARGET", &target.to_string())).await?;
    for namespace in ["sidecar", "ambient"] {
        probed(cluster, report, namespace, &server).await?;
    }
    let result = job_ends(cluster).await;
    report.check("a Job of namespace sidecar ends", result);
    let result = joins(cluster, &target).await;
    report.check("a pod that was there before its namespace joins", result);
    cluster
        .kubectl(&["delete", "--wait=false", "namespace", "late"])
        .await?;
    Ok(())
}

/// Nothing but the mesh is let into a namespace.
pub(super) fn strict(namespace: &str) -> String {
    format!(
        "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
         metadata: {{name: strict, namespace: {namespace}}}\nspec: {{mtls: Strict}}\n"
    )
}

async fn probed(cluster: &Cluster, report: &mut Report, namespace: &str, server: &str) -> anyhow::Result<()> {
    ready(cluster, namespace, "probed").await?;
    let path = "jsonpath={.status.podIP}";
    let get = ["get", "pod", "-n", namespace, "probed", "-o", path];
    let address = cluster.kubectl(&get).await?;
    let inside = Target {
        protocol: Protocol::H1,
        address: format!("{address}:{}", port::HTTP).parse()?,
    };
    let outside = Target {
        protocol: Protocol::Tcp,
        address: format!("{address}:{}", port::TCP).parse()?,
    };
    let result = async {
        served(cluster.call("none", inside, ATTEMPTS).await?, 0)?;
        served(cluster.call("ambient", inside, ATTEMPTS).await?, ATTEMPTS)?;
        stays_ready(cluster, namespace).await
    };
    report.check(format!("probes under STRICT, {namespace}"), result.await);
    let result = async {
        served(cluster.call("none", outside, ATTEMPTS).await?, ATTEMPTS)?;
        anyhow::Ok("served in plaintext, the other port not")
    };
    report.check(format!("an excluded inbound port, {namespace}"), result.await);
    let result = async {
        for (protocol, port, wanted) in [
            (Protocol::H1, port::HTTP, ATTEMPTS),
            // Not tunnelled, so that STRICT refuses it.
            (Protocol::Tcp, port::TCP, 0),
        ] {
            let target = Target {
                protocol,
                address: format!("{server}:{port}").parse()?,
            };
            let (attempts, target) = (ATTEMPTS.to_string(), target.to_string());
            let call = ["call", "--attempts", &attempts, &target];
            let limit = Duration::from_secs(60);
            let mut calls: Vec<Calls> = cluster.program_in(namespace, "probed", &call, limit).await?;
            served(calls.pop().context("no calls")?, wanted)?;
        }
        anyhow::Ok("dialled in plaintext, the other port in a tunnel")
    };
    report.check(format!("an excluded outbound port, {namespace}"), result.await);
    Ok(())
}

async fn ready(cluster: &Cluster, namespace: &str, pod: &str) -> anyhow::Result<()> {
    let pod = format!("pod/{pod}");
    let wait = [
        "wait",
        "-n",
        namespace,
        "--for=condition=Ready",
        &pod,
        "--timeout=60s",
    ];
    cluster.kubectl(&wait).await.map(drop)
}

/// The pod has been ready ever since it was for the first time: one probe that fails would show.
async fn stays_ready(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status} \
                {.status.containerStatuses[0].restartCount} \
                {.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}";
    let get = ["get", "pod", "-n", namespace, "probed", "-o", path];
    let first = cluster.kubectl(&get).await?;
    ensure!(first.starts_with("True 0 "), "{first}");
    // Probes are a second apart.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let then = cluster.kubectl(&get).await?;
    ensure!(first == then, "{first}, then {then}");
    Ok(format!("ready without a break: {then}"))
}

fn served(calls: Calls, wanted: usize) -> anyhow::Result<()> {
    ensure!(
        calls.served() == wanted && calls.outcomes.len() == ATTEMPTS,
        "{} of {ATTEMPTS} served at {}, not {wanted}: {:?}",
        calls.served(),
        calls.target,
        calls.outcomes
    );
    Ok(())
}

/// It has a sidecar, calls through it, and is complete.
async fn job_ends(cluster: &Cluster) -> anyhow::Result<String> {
    let wait = [
        "wait",
        "-n",
        "sidecar",
        "--for=condition=Complete",
        "job/errand",
        "--timeout=60s",
    ];
    cluster.kubectl(&wait).await?;
    let path = "jsonpath={.items[0].spec.initContainers[*].name}";
    let get = ["get", "pods", "-n", "sidecar", "-l", "app=errand", "-o", path];
    let sidecar = cluster.kubectl(&get).await?;
    ensure!(!sidecar.trim().is_empty(), "it had no sidecar");
    let logs = ["logs", "-n", "sidecar", "job/errand", "-c", "errand"];
    let said = cluster.kubectl(&logs).await?;
    let calls: Vec<Calls> = serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))?;
    let served: usize = calls.iter().map(Calls::served).sum();
    ensure!(served == 20, "{served} of 20 served: {said}");
    Ok(format!("beside {}, 20 of 20 served, complete", sidecar.trim()))
}

/// The pod that is there becomes ambient: the same process, reached and dialling through the mesh from then
/// on. Connections that it had without the mesh go on without it.
async fn joins(cluster: &Cluster, server: &Target) -> anyhow::Result<String> {
    ready(cluster, "late", "early").await?;
    let path = "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID} {.status.podIP}";
    let get = ["get", "pod", "-n", "late", "early", "-o", path];
    let before = cluster.kubectl(&get).await?;
    let address = before.split_whitespace().last().context("no address")?;
    let target = format!("{address}:{}", port::HTTP);
    let own = ["call", "--attempts", "5", &server.to_string()].map(str::to_owned);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let dials = async || -> anyhow::Result<usize> {
        let limit = Duration::from_secs(60);
        let calls: Vec<Calls> = cluster.program_in("late", "early", &own, limit).await?;
        Ok(calls.iter().map(Calls::served).sum())
    };
    let outside = dials().await?;
    ensure!(
        outside == 0,
        "STRICT let {outside} of its attempts in before it was of the mesh"
    );
    let load = [
        "load",
        "--target",
        &target,
        "--rate",
        "20",
        "--seconds",
        "6",
        "--connections",
        "5",
    ];
    let joining = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.label("late", "ambient").await?;
        eventually(Duration::from_secs(20), async || {
            let served = dials().await?;
            ensure!(served == 5, "{served} of 5 of its attempts served");
            Ok(())
        })
        .await
    };
    let (tally, joined) = tokio::join!(cluster.client::<Tally>("none", &load), joining);
    let tally = tally?;
    joined?;
    ensure!(tally.connections == 5 && tally.connections_lost == 0, "{tally}");
    cluster.apply(&strict("late")).await?;
    let target = Target {
        protocol: Protocol::H1,
        address: target.parse()?,
    };
    eventually(Duration::from_secs(20), async || {
        served(cluster.call("none", target, ATTEMPTS).await?, 0)
    })
    .await?;
    served(cluster.call("sidecar", target, ATTEMPTS).await?, ATTEMPTS)?;
    let after = cluster.kubectl(&get).await?;
    ensure!(before == after, "it was {before}, and is {after}");
    Ok(format!(
        "the same container, both ways in tunnels; the {} connections that strangers had then went on",
        tally.connections
    ))
}
