//! The smoke test on a real Kubernetes: that what holds in network namespaces also holds where kubelet, a
//! container runtime, kube-proxy and admission have a say. The cluster and the mesh in it are there already.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::ValueEnum;

use crate::capture::Capture;
use crate::mesh::eventually;
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::{Outcome, Protocol};
use crate::report::Report;

use cluster::Cluster;

mod applications;
mod cluster;
mod ctl;
mod health;
mod pods;
mod power;
mod proxy;
mod removal;
mod rights;
mod rolling;
mod root;
mod survival;
mod switch;
mod under_load;
mod upgrade;
mod waypoint;

/// The fewest checks that it makes.
const MINIMUM: usize = 81
    + applications::CHECKS
    + ctl::CHECKS
    + waypoint::CHECKS
    + rights::CHECKS
    + root::CHECKS
    + upgrade::CHECKS
    + rolling::CHECKS
    + power::CHECKS
    + removal::CHECKS;
const NAMESPACES: [&str; 3] = ["none", "sidecar", "ambient"];
/// The nodes of the cluster.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The cluster, and how the mesh was installed on it.
#[derive(Clone, Debug, clap::Args)]
pub struct OnKubernetes {
    /// The script that made the cluster.
    #[arg(long)]
    cluster: PathBuf,
    /// The chart.
    #[arg(long)]
    chart: PathBuf,
    /// The values that it was installed with.
    #[arg(long)]
    values: PathBuf,
    /// These steps alone, in the usual order; none: all of them.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,
}

impl OnKubernetes {
    /// The fewest checks that this makes.
    pub(super) fn minimum(&self) -> usize {
        if self.only.is_empty() {
            MINIMUM
        } else {
            self.only.len()
        }
    }
}

/// A part of the suite. Later ones find what earlier ones left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    Planes,
    Cells,
    Services,
    Wire,
    Policies,
    Applications,
    Rights,
    Trefoilctl,
    Waypoint,
    Switch,
    Pods,
    Survival,
    Root,
    Upgrade,
    Rolling,
    Health,
    Power,
    Removal,
}

pub(super) async fn run(report: &mut Report, ground: OnKubernetes) -> anyhow::Result<()> {
    let OnKubernetes {
        cluster,
        chart,
        values,
        only,
    } = ground;
    let cluster = Cluster {
        script: cluster,
        chart,
        values,
    };
    for step in Step::value_variants() {
        if only.is_empty() || only.contains(step) {
            let begun = Instant::now();
            take(*step, &cluster, report).await?;
            let took = begun.elapsed().as_secs_f64();
            let name = format!("{step:?}").to_lowercase();
            report.note(format_args!("{name} took {took:.1} s"));
        }
    }
    Ok(())
}

async fn take(step: Step, cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    match step {
        Step::Planes => planes(cluster, report).await,
        Step::Cells => cells(cluster, report).await?,
        Step::Services => services(cluster, report).await?,
        Step::Wire => wire(cluster, report).await,
        Step::Policies => policies(cluster, report).await?,
        Step::Applications => applications::run(cluster, report).await?,
        Step::Rights => rights::run(cluster, report).await?,
        Step::Trefoilctl => ctl::run(cluster, report).await?,
        Step::Waypoint => waypoint::run(cluster, report).await?,
        Step::Switch => switch::run(cluster, report).await?,
        Step::Pods => pods::run(cluster, report).await?,
        Step::Survival => survival::run(cluster, report).await?,
        Step::Root => root::run(cluster, report).await?,
        Step::Upgrade => upgrade::run(cluster, report).await?,
        Step::Rolling => rolling::run(cluster, report).await?,
        Step::Health => health::run(cluster, report).await,
        Step::Power => power::run(cluster, report).await?,
        Step::Removal => removal::run(cluster, report).await?,
    }
    Ok(())
}

/// Each pod is on the plane that its namespace asks for.
async fn planes(cluster: &Cluster, report: &mut Report) {
    for (namespace, plane) in [("sidecar", "sidecar"), ("ambient", "node")] {
        let result = on_plane(cluster, namespace, plane).await;
        report.check(
            format!("pods of {namespace} are redirected to their plane"),
            result,
        );
    }
}

async fn on_plane(cluster: &Cluster, namespace: &str, plane: &str) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let planes = cluster.redirection(namespace, "server").await?;
        ensure!(
            planes.len() == NODES.len() && planes.iter().all(|name| name == plane),
            "they are on {planes:?}, not all on {plane}"
        );
        Ok(format!("{} pods on {plane}", planes.len()))
    })
    .await
}

/// Every pair of modes on two nodes, and the meshed ones on one node.
async fn cells(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for client in NAMESPACES {
        for server in NAMESPACES {
            for node in ["n1", "n2"] {
                if node == "n1" && (client == "none" || server == "none") {
                    continue;
                }
                let address = cluster.address(server, "server", node).await?;
                let place = if node == "n1" { "same node" } else { "other node" };
                let result = cell(cluster, client, &format!("{server}/{node}"), &address).await;
                report.check(format!("{client} → {server}, {place}"), result);
            }
        }
    }
    Ok(())
}

async fn cell(cluster: &Cluster, client: &str, who: &str, address: &str) -> anyhow::Result<String> {
    let mut served = 0;
    for (protocol, port) in [
        (Protocol::H1, port::HTTP),
        (Protocol::Grpc, port::HTTP),
        (Protocol::Tcp, port::TCP),
    ] {
        let target = Target {
            protocol,
            address: format!("{address}:{port}").parse()?,
        };
        let calls = cluster.call(client, target, 4).await?;
        for outcome in &calls.outcomes {
            let Outcome::Served(answer) = outcome else {
                bail!("{target}: {outcome:?}");
            };
            ensure!(answer.server == who, "{target}: answered by {}", answer.server);
        }
        served += calls.served();
    }
    ensure!(served == 12, "{served} of 12 served");
    Ok("12 of 12 served by the right pod".into())
}

/// Service addresses: kube-proxy's business outside the mesh, the planes' inside.
async fn services(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for client in NAMESPACES {
        for server in ["sidecar", "ambient"] {
            let http = cluster.service(server, "server").await?;
            let redis = cluster.service(server, "redis").await?;
            let result = async {
                let target = Target {
                    protocol: Protocol::H1,
                    address: format!("{http}:80").parse()?,
                };
                let calls = cluster.call(client, target, 20).await?;
                ensure!(
                    calls.served() == 20,
                    "{} of 20 served: {:?}",
                    calls.served(),
                    calls.outcomes
                );
                let target = format!("{redis}:6379");
                let answers: usize = cluster
                    .client(client, &["redis", "--target", &target, "--count", "1000"])
                    .await?;
                anyhow::Ok(format!(
                    "20 of 20 served; Redis answered {answers} pipelined commands"
                ))
            };
            report.check(format!("{client} → services of {server}"), result.await);
        }
    }
    Ok(())
}

/// The network between nodes carries no plaintext of the mesh.
async fn wire(cluster: &Cluster, report: &mut Report) {
    for client in ["none", "sidecar", "ambient"] {
        let server = if client == "none" { "none" } else { "ambient" };
        let result = async {
            let address = cluster.address(server, "server", "n2").await?;
            let capture = Capture::start("kubenet").await?;
            let target = Target {
                protocol: Protocol::H1,
                address: format!("{address}:{}", port::HTTP).parse()?,
            };
            let calls = cluster.call(client, target, 10).await?;
            let captured = capture.stop().await?;
            ensure!(calls.served() == 10, "{} of 10 served", calls.served());
            ensure!(
                (captured.plaintext > 0) == (client == "none"),
                "{} plaintext markers",
                captured.plaintext
            );
            anyhow::Ok(format!("10 calls, {} plaintext markers", captured.plaintext))
        };
        report.check(format!("on the wire, {client} → {server}"), result.await);
    }
}

/// A policy that allows, then denies, exactly one identity; then none.
async fn policies(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for server in ["sidecar", "ambient"] {
        for (action, who) in [("Allow", "sidecar"), ("Allow", "ambient"), ("Deny", "ambient")] {
            cluster.apply(&policy(server, action, who)).await?;
            for client in NAMESPACES {
                let wanted = (client == who) == (action == "Allow");
                let result = verdict(cluster, client, server, wanted).await;
                let name = format!("{client} → {server} under {action} {who}");
                report.check(name, result);
            }
        }
        cluster
            .kubectl(&["delete", "authorizationpolicy", "-n", server, "smoke"])
            .await?;
        for client in NAMESPACES {
            let result = verdict(cluster, client, server, true).await;
            report.check(format!("{client} → {server} with the policy gone"), result);
        }
        network_policy(cluster, report, server).await?;
    }
    Ok(())
}

/// A NetworkPolicy, which this cluster's network plugin does not enforce: planes do, of what comes out of tunnels.
async fn network_policy(cluster: &Cluster, report: &mut Report, server: &str) -> anyhow::Result<()> {
    for who in ["sidecar", "ambient"] {
        cluster
            .apply(&format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: smoke, namespace: {server}}}\n\
                 spec: {{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress], ingress: [{{from: \
                 [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {who}}}}}}}], ports: [{{port: {}}}, {{port: 15008}}]}}]}}\n",
                port::HTTP
            ))
            .await?;
        for client in ["sidecar", "ambient"] {
            let result = verdict(cluster, client, server, client == who).await;
            let name = format!("{client} → {server} under a NetworkPolicy for {who}");
            report.check(name, result);
        }
    }
    cluster
        .kubectl(&["delete", "networkpolicy", "-n", server, "smoke"])
        .await?;
    for client in ["sidecar", "ambient"] {
        let result = verdict(cluster, client, server, true).await;
        report.check(format!("{client} → {server} with no NetworkPolicy"), result);
    }
    Ok(())
}

fn policy(namespace: &str, action: &str, who: &str) -> String {
    format!(
        "apiVersion: trefoil.dev/v1alpha1\nkind: AuthorizationPolicy\n\
         metadata: {{name: smoke, namespace: {namespace}}}\n\
         spec: {{action: {action}, rules: [{{from: [{{principals: [cluster.local/ns/{who}/sa/client]}}]}}]}}\n"
    )
}

async fn verdict(cluster: &Cluster, client: &str, server: &str, wanted: bool) -> anyhow::Result<String> {
    let address = cluster.address(server, "server", "n2").await?;
    let target = Target {
        protocol: Protocol::H1,
        address: format!("{address}:{}", port::HTTP).parse()?,
    };
    // The policy is on its way: once it is there, every attempt must go one way.
    eventually(Duration::from_secs(15), async || {
        let calls = cluster.call(client, target, 1).await?;
        ensure!((calls.served() == 1) == wanted, "{:?}", calls.outcomes);
        Ok(())
    })
    .await?;
    let calls = cluster.call(client, target, 5).await?;
    let expected = if wanted { 5 } else { 0 };
    ensure!(
        calls.served() == expected,
        "{} of 5 served: {:?}",
        calls.served(),
        calls.outcomes
    );
    Ok(format!("{expected} of 5 served"))
}
