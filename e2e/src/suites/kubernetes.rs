//! The smoke test on a real Kubernetes: that what holds in network namespaces also holds where kubelet, a
//! container runtime, kube-proxy and admission have a say. The cluster and the mesh in it are there already.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::capture::Capture;
use crate::mesh::eventually;
use crate::programs::call::{Calls, Target};
use crate::programs::load::Tally;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

mod ctl;
mod survival;

/// The fewest checks that it makes.
pub(super) const MINIMUM: usize = 55 + ctl::CHECKS;
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(90);
const NAMESPACES: [&str; 3] = ["none", "sidecar", "ambient"];

/// The cluster, through the script that made it.
struct Cluster {
    script: PathBuf,
}

impl Cluster {
    /// A command on a node; its output.
    async fn on(&self, node: &str, command: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let mut child = Command::new(&self.script)
            .args(["exec", node])
            .args(command)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
        let output = output.with_context(|| format!("{} took too long", command.join(" ")))??;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}", command.join(" "), output.status, told.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.on("n1", &[&["kubectl"], arguments].concat(), None).await
    }

    async fn apply(&self, objects: &str) -> anyhow::Result<()> {
        let apply = self.on("n1", &["kubectl", "apply", "-f", "-"], Some(objects));
        apply.await.map(drop)
    }

    /// A part of this program in the client of a namespace; what it prints.
    async fn client<Printed: DeserializeOwned>(
        &self,
        namespace: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Printed> {
        let exec = ["exec", "-n", namespace, "client", "--", "/trefoil-e2e"];
        let output = self.kubectl(&[&exec, arguments].concat()).await?;
        serde_json::from_str(&output).with_context(|| format!("reading {output:?}"))
    }

    /// The address of the pod of a set on a node.
    async fn address(&self, namespace: &str, app: &str, node: &str) -> anyhow::Result<String> {
        let label = format!("app={app}");
        let field = format!("spec.nodeName={node}");
        let path = "jsonpath={.items[0].status.podIP}";
        let get = [
            "get",
            "pods",
            "-n",
            namespace,
            "-l",
            &label,
            "--field-selector",
            &field,
            "-o",
            path,
        ];
        self.kubectl(&get).await
    }

    async fn service(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let path = "jsonpath={.spec.clusterIP}";
        self.kubectl(&["get", "service", "-n", namespace, name, "-o", path])
            .await
    }

    async fn call(&self, from: &str, target: Target, attempts: usize) -> anyhow::Result<Calls> {
        let arguments = ["call", "--attempts", &attempts.to_string(), &target.to_string()];
        let mut calls: Vec<Calls> = self.client(from, &arguments).await?;
        calls.pop().context("no calls")
    }

    async fn label(&self, namespace: &str, mode: &str) -> anyhow::Result<()> {
        let label = format!("trefoil.dev/dataplane-mode={mode}");
        self.kubectl(&["label", "namespace", namespace, &label, "--overwrite"])
            .await
            .map(drop)
    }

    /// What the agent says redirects the pods of a set.
    async fn redirection(&self, namespace: &str, app: &str) -> anyhow::Result<Vec<String>> {
        let path = r"jsonpath={range .items[*]}{.metadata.annotations.trefoil\.dev/redirection}{' '}{end}";
        let label = format!("app={app}");
        let text = self
            .kubectl(&["get", "pods", "-n", namespace, "-l", &label, "-o", path])
            .await?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }
}

pub(super) async fn run(report: &mut Report, script: &Path) -> anyhow::Result<()> {
    let cluster = Cluster {
        script: script.to_owned(),
    };
    planes(&cluster, report).await;
    cells(&cluster, report).await?;
    services(&cluster, report).await?;
    wire(&cluster, report).await;
    policies(&cluster, report).await?;
    ctl::run(&cluster, report).await?;
    switch(&cluster, report).await?;
    survival::run(&cluster, report).await
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
            planes.len() == 2 && planes.iter().all(|name| name == plane),
            "they are on {planes:?}, not all on {plane}"
        );
        Ok(format!("2 pods on {plane}"))
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
            let crate::programs::session::Outcome::Served(answer) = outcome else {
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

/// A namespace changes plane and back, under load that is not retried.
async fn switch(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let target = format!(
        "{}:{}",
        cluster.address("sidecar", "server", "n2").await?,
        port::HTTP
    );
    let load = ["load", "--target", &target, "--rate", "50", "--seconds", "20"];
    let each = cluster.client::<Tally>("ambient", &load);
    let long = [&load[..], &["--connections", "10"]].concat();
    let long = cluster.client::<Tally>("ambient", &long);
    let switching = async {
        for (mode, plane) in [
            ("ambient", "node"),
            ("sidecar", "sidecar"),
            ("ambient", "node"),
            ("sidecar", "sidecar"),
        ] {
            cluster.label("sidecar", mode).await?;
            on_plane(cluster, "sidecar", plane).await?;
        }
        anyhow::Ok("four times")
    };
    let (each, long, switched) = tokio::join!(each, long, switching);
    report.check("the namespace changes plane under load", switched);
    for (name, tally) in [("a connection each", each), ("long-lived connections", long)] {
        report.check(
            format!("load across the switch, {name}"),
            tally.and_then(|tally| nothing_lost(&tally, 900)),
        );
    }
    Ok(())
}

/// Nothing was refused, reset or left waiting, and the load was not a trickle.
fn nothing_lost(tally: &Tally, minimum: u64) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= minimum,
        "only {} attempts were made",
        tally.attempted
    );
    ensure!(tally.lost() == 0 && tally.connections_lost == 0, "{tally}");
    Ok(tally.to_string())
}
