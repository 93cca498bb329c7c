//! Layers: one fault in each, and `why` and the access log name exactly that one.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use tokio::process::Command;

use crate::mesh::eventually;
use crate::mesh::processes::{Part, signal};
use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, Pod, PodPlan};
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

/// What `trefoilctl why -o json` says.
#[derive(Debug, Deserialize)]
struct Why {
    well: bool,
    layer: Option<String>,
    reason: String,
    remedy: Option<String>,
}

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("layers"), &[]).await?;
    for (client, server) in [("ambient", "sidecar"), ("sidecar", "ambient")] {
        let client = standard.client(client)?;
        let server = standard.server(server, "n2")?;
        healthy(&standard, report, client, server).await;
        policy(&standard, report, client, server).await?;
        application(&standard, report, client, server).await;
        endpoint(&standard, report, client).await?;
    }
    stopped_plane(&standard, report).await?;
    flushed_rules(&standard, report).await?;
    standard.mesh.down().await?;
    expired(report).await
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

async fn why(mesh: &Mesh, client: &Pod, server: &str) -> anyhow::Result<Why> {
    // It exits with an error where something is wrong: what it prints is what counts here.
    let told = mesh.said(&["why", &name(client), server, "-o", "json"]).await?;
    serde_json::from_str(&told).with_context(|| format!("reading {told:?}"))
}

/// Whether it names this layer, with a reason that mentions this, and a remedy.
async fn names(
    mesh: &Mesh,
    client: &Pod,
    server: &str,
    layer: &str,
    mention: &str,
) -> anyhow::Result<String> {
    let why = why(mesh, client, server).await?;
    ensure!(!why.well && why.layer.as_deref() == Some(layer), "{why:?}");
    ensure!(
        why.reason.contains(mention),
        "the reason does not mention {mention:?}: {why:?}"
    );
    ensure!(why.remedy.is_some(), "no remedy: {why:?}");
    Ok(format!("{layer}: {}", why.reason))
}

async fn healthy(standard: &Standard, report: &mut Report, client: &Pod, server: &Pod) {
    let result = async {
        let why = why(&standard.mesh, client, &at(server, port::TCP)).await?;
        ensure!(why.well && why.layer.is_none(), "{why:?}");
        Ok(why.reason)
    };
    report.check(
        format!("{} → {}: no fault", name(client), name(server)),
        result.await,
    );
}

fn at(server: &Pod, port: u16) -> String {
    format!("{}:{port}", name(server))
}

/// Denied by policy: `why` and the server's access log name the policy.
async fn policy(standard: &Standard, report: &mut Report, client: &Pod, server: &Pod) -> anyhow::Result<()> {
    let namespace = &server.namespace;
    standard
        .mesh
        .apply(&format!(
            "apiVersion: trefoil.dev/v1alpha1\nkind: AuthorizationPolicy\n\
             metadata: {{name: layers, namespace: {namespace}}}\n\
             spec: {{action: Deny, rules: [{{from: [{{principals: [cluster.local/ns/{}/sa/client]}}]}}]}}\n",
            client.namespace
        ))
        .await?;
    refused(standard, client, server).await?;
    let policy = format!("{namespace}/layers");
    let route = format!("{} → {}", name(client), name(server));
    let result = names(&standard.mesh, client, &at(server, port::TCP), "policy", &policy).await;
    report.check(format!("{route}: denied by policy"), result);
    let result = logged(standard, server, &["DENY", &policy]).await;
    report.check(format!("{route}: denied by policy, in the access log"), result);
    standard
        .mesh
        .delete("authorizationpolicy", namespace, "layers")
        .await
}

/// Waits until a call is refused.
async fn refused(standard: &Standard, client: &Pod, server: &Pod) -> anyhow::Result<()> {
    let target = Target {
        protocol: Protocol::Tcp,
        address: server.at(port::TCP),
    };
    eventually(Duration::from_secs(15), async || {
        let calls = standard.call_from(client, &[target], 1).await?;
        ensure!(calls[0].served() == 0, "still served");
        Ok(())
    })
    .await
}

/// A line of the server's plane that says all of this.
async fn logged(standard: &Standard, server: &Pod, words: &[&str]) -> anyhow::Result<String> {
    let file = if server.namespace == "sidecar" {
        standard
            .mesh
            .directory()
            .join("pods")
            .join(name(server))
            .join("sidecar.log")
    } else {
        standard.mesh.log(&format!("{}-node", server.node))
    };
    eventually(Duration::from_secs(5), async || {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let line = text
            .lines()
            .rev()
            .find(|line| words.iter().all(|word| line.contains(word)));
        let line = line.with_context(|| format!("no line with {words:?} in {}", file.display()))?;
        Ok(line.chars().take(60).collect())
    })
    .await
}

/// Nothing listens on the port.
async fn application(standard: &Standard, report: &mut Report, client: &Pod, server: &Pod) {
    let result = names(&standard.mesh, client, &at(server, 7777), "application", "").await;
    report.check(
        format!("{} → {}: the application is closed", name(client), name(server)),
        result,
    );
}

/// A service over nobody.
async fn endpoint(standard: &Standard, report: &mut Report, client: &Pod) -> anyhow::Result<()> {
    let namespace = &client.namespace;
    standard
        .mesh
        .apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: nobody, namespace: {namespace}}}\n\
             spec: {{selector: {{app: nobody}}, ports: [{{port: 80}}]}}\n"
        ))
        .await?;
    let server = format!("{namespace}/nobody:80");
    let result = eventually(Duration::from_secs(10), async || {
        names(&standard.mesh, client, &server, "endpoint", "").await
    });
    report.check(format!("{} → a service over nobody", name(client)), result.await);
    Ok(())
}

/// The server's plane does not answer: its sidecar, or its node's proxy, is stopped.
async fn stopped_plane(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let client = standard.client("ambient")?;
    let sidecar = standard.server("sidecar", "n2")?;
    let process = sidecar.sidecar.context("the pod has no sidecar")?;
    signal(process, Signal::STOP)?;
    let result = names(&standard.mesh, client, &at(sidecar, port::TCP), "plane", "").await;
    signal(process, Signal::CONT)?;
    report.check("the server's sidecar does not answer", result);

    let client = standard.client("sidecar")?;
    let server = standard.server("ambient", "n2")?;
    let stopped = [
        standard.mesh.processes_of(Part::Supervisor, "n2")?,
        standard.mesh.processes_of(Part::Worker, "n2")?,
    ]
    .concat();
    for process in &stopped {
        signal(*process, Signal::STOP)?;
    }
    let result = names(&standard.mesh, client, &at(server, port::TCP), "plane", "").await;
    for process in &stopped {
        signal(*process, Signal::CONT)?;
    }
    report.check("the server's node proxy does not answer", result);
    Ok(())
}

/// The rules in the server's namespace are gone.
async fn flushed_rules(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let client = standard.client("sidecar")?;
    for namespace in ["ambient", "sidecar"] {
        let server = standard.server(namespace, "n2")?;
        let flushed = Command::new("ip")
            .args([
                "netns",
                "exec",
                &standard.mesh.netns(server),
                "nft",
                "flush",
                "ruleset",
            ])
            .status()
            .await?;
        ensure!(flushed.success(), "nft: {flushed}");
        let result = names(&standard.mesh, client, &at(server, port::TCP), "redirection", "").await;
        report.check(format!("the rules of an {namespace} server are gone"), result);
    }
    Ok(())
}

/// Certificates of seconds, and a control plane that signs no more.
async fn expired(report: &mut Report) -> anyhow::Result<()> {
    let mesh = Mesh::up(&super::mesh_of("layers"), &["--certificate-lifetime", "20s"]).await?;
    let program = mesh.program()?;
    let plan = |name: &str, node: &str| PodPlan {
        namespace: "ambient".into(),
        name: name.into(),
        node: node.into(),
        account: name.into(),
        ports: if name == "server" {
            vec![port::TCP]
        } else {
            Vec::new()
        },
        ..PodPlan::default()
    };
    let client = mesh.run(&plan("client", "n1"), &["sleep", "infinity"]).await?;
    // One that has no tunnel yet when its certificate expires.
    let fresh = mesh.run(&plan("fresh", "n1"), &["sleep", "infinity"]).await?;
    let server = mesh
        .run(&plan("server", "n2"), &[&program, "serve", "--name", "server"])
        .await?;
    let before = why(&mesh, &client, &at(&server, port::TCP)).await?;
    ensure!(before.well, "{before:?}");
    for process in mesh.processes_of(Part::ControlPlane, "")? {
        signal(process, Signal::STOP)?;
    }
    // Expiry is a matter of the clock alone.
    tokio::time::sleep(Duration::from_secs(21)).await;
    let target = format!("tcp@{}", server.at(port::TCP));
    let calls: Vec<crate::programs::call::Calls> = mesh.program_in(&fresh, &["call", &target]).await?;
    let refused = if calls[0].served() == 0 {
        Ok("refused")
    } else {
        Err(anyhow::anyhow!("served"))
    };
    report.check("a connection with an expired certificate", refused);
    let log = std::fs::read_to_string(mesh.log("n1-node"))?;
    let named = log
        .lines()
        .rev()
        .find(|line| line.contains("certificate"))
        .map(|line| line.chars().take(200).collect::<String>())
        .context("the log of the client's plane names no certificate");
    report.check("an expired certificate, in the log", named);
    for process in mesh.processes_of(Part::ControlPlane, "")? {
        signal(process, Signal::CONT)?;
    }
    mesh.down().await
}
