//! Every part of the mesh is restarted as operators do it (`kubectl rollout restart`), one after another, under load
//! between nodes: every attempt is served, and only at a node proxy's may what is established end.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::Cluster;
use super::under_load::{LONG_LIVED, ended, flag, load, target, undisturbed, unharmed};
use super::waypoint::known_by_identity;
use crate::mesh::eventually;
use crate::programs::call::Target;
use crate::programs::load::Tally;
use crate::programs::session::Protocol;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 1 + 3 * PARTS.len();
/// Attempts a second of each load.
const RATE: u32 = 25;
/// How long before the restart a load begins.
const BEFORE: Duration = Duration::from_secs(3);
/// How long the last pod may take to be gone: a node proxy drains as long as it was told to.
const DRAINED: Duration = Duration::from_secs(60);

/// What is restarted.
struct Part {
    name: &'static str,
    /// Its pods by namespace and label.
    pods: (&'static str, &'static str),
    object: &'static str,
    /// Its new pods have to be on this many nodes at least.
    count: usize,
    /// Connections that outlive its drain end with it.
    carries: bool,
}

const PARTS: [Part; 4] = [
    Part {
        name: "the control plane",
        pods: ("trefoil-system", "app=trefoil-control-plane"),
        object: "deployment/trefoil-control-plane",
        count: 2,
        carries: false,
    },
    Part {
        name: "the agent",
        pods: ("trefoil-system", "app=trefoil-cni"),
        object: "daemonset/trefoil-cni",
        count: 3,
        carries: false,
    },
    Part {
        name: "a waypoint",
        pods: ("rolling", "gateway.networking.k8s.io/gateway-name=waypoint"),
        object: "deployment/waypoint",
        count: 1,
        carries: false,
    },
    Part {
        name: "the node proxy",
        pods: ("trefoil-system", "app=trefoil-node"),
        object: "daemonset/trefoil-node",
        count: 3,
        carries: true,
    },
];

/// A service behind a waypoint.
const BEHIND: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: rolling, labels: {trefoil.dev/dataplane-mode: ambient}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: rolling}
spec:
  gatewayClassName: trefoil-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: rolling, labels: {trefoil.dev/use-waypoint: waypoint}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: rolling, labels: {app: web}}
spec:
  nodeName: n3
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: kube.test/trefoil-e2e:1
    imagePullPolicy: Never
    args: [serve, --name=rolling/web]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

/// The two services without a waypoint, and the one that has one.
struct Targets {
    ambient: String,
    sidecar: String,
    behind: String,
}

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    cluster.apply(BEHIND).await?;
    let wait = ["wait", "-n", "rolling", "--timeout=60s"];
    for (condition, object) in [("Programmed", "gateway/waypoint"), ("Ready", "pod/web")] {
        let condition = format!("--for=condition={condition}");
        let wait = [&wait[..], &[&condition, object]].concat();
        cluster.kubectl(&wait).await?;
    }
    let behind = format!("{}:80", cluster.service("rolling", "web").await?);
    let web = Target {
        protocol: Protocol::H1,
        address: behind.parse()?,
    };
    report.check(
        "a service is behind the waypoint that is restarted",
        known_by_identity(cluster, "ambient", web).await,
    );
    let targets = Targets {
        ambient: target(cluster, "ambient", "n2").await?,
        sidecar: target(cluster, "sidecar", "n3").await?,
        behind,
    };
    for part in &PARTS {
        restarted(cluster, report, part, &targets).await;
    }
    cluster
        .kubectl(&["delete", "namespace", "rolling", "--timeout=80s"])
        .await?;
    Ok(())
}

async fn restarted(cluster: &Cluster, report: &mut Report, part: &Part, targets: &Targets) {
    let enough = format!("/tmp/restarted-{}", part.object.replace('/', "-"));
    let load = async |client, target: &str, connections| {
        load(cluster, client, target, connections, RATE, &enough).await
    };
    let (first, second, third, direct, through, restart) = tokio::join!(
        load("sidecar", &targets.ambient, "0"),
        load("ambient", &targets.sidecar, "0"),
        load("sidecar", &targets.behind, "0"),
        load("ambient", &targets.sidecar, LONG_LIVED),
        load("ambient", &targets.behind, LONG_LIVED),
        restart(cluster, part, &enough),
    );
    let took = match restart {
        Ok((count, took)) => {
            let seen = format!(
                "{count} new pods, {:.1} s until the last old one was gone",
                took.as_secs_f64()
            );
            report.check(format!("rolling restart of {}", part.name), Ok(seen));
            took
        }
        Err(error) => {
            report.check(format!("rolling restart of {}", part.name), Err::<&str, _>(error));
            return;
        }
    };
    // As many as are due for as long as it lasts.
    let due = u64::from(RATE) * took.as_secs();
    let attempts = [first, second, third].into_iter().collect();
    report.check(
        format!("during the rolling restart of {}, attempts", part.name),
        each(attempts, |tally| unharmed(tally, due)),
    );
    let established = [direct, through].into_iter().collect();
    report.check(
        format!(
            "during the rolling restart of {}, what was established",
            part.name
        ),
        each(established, |tally| match part.carries {
            true => ended(tally),
            false => undisturbed(tally, due),
        }),
    );
}

/// How many pods came in the place of those that were there, and how long it took until the last of those was gone.
async fn restart(cluster: &Cluster, part: &Part, enough: &str) -> anyhow::Result<(usize, Duration)> {
    let flags = ["sidecar", "ambient"].map(|client| flag(client, enough));
    let replaced = async {
        let before = cluster.uids(part.pods.0, part.pods.1).await?;
        tokio::time::sleep(BEFORE).await;
        let begun = Instant::now();
        let namespace = part.pods.0;
        cluster
            .kubectl(&["rollout", "restart", "-n", namespace, part.object])
            .await?;
        let status = ["rollout", "status", "-n", namespace, part.object, "--timeout=85s"];
        cluster.kubectl(&status).await?;
        let count = eventually(DRAINED, async || {
            let after = cluster.uids(part.pods.0, part.pods.1).await?;
            ensure!(
                after.len() >= part.count && after.iter().all(|pod| !before.contains(pod)),
                "{before:?}, then {after:?}"
            );
            Ok(after.len())
        })
        .await?;
        anyhow::Ok((count, begun.elapsed()))
    }
    .await;
    for flag in flags {
        tokio::fs::write(flag?, "").await?;
    }
    replaced
}

/// What is made of each load, put together.
fn each(
    tallies: anyhow::Result<Vec<Tally>>,
    judged: impl Fn(Tally) -> anyhow::Result<Tally>,
) -> anyhow::Result<String> {
    let tallies = tallies?
        .into_iter()
        .map(judged)
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(words(&tallies))
}

fn words(tallies: &[Tally]) -> String {
    let words: Vec<String> = tallies.iter().map(Tally::to_string).collect();
    words.join(" · ")
}
