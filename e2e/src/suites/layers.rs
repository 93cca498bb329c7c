//! Layers: one fault in each, and `why` names exactly that one, and so does every line that a plane on the path
//! writes of the same kind of connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Service;
use rustix::process::Signal;
use serde::Deserialize;
use tokio::process::Command;

use crate::mesh::eventually;
use crate::mesh::processes::{Part, signal};
use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, Pod, PodPlan};
use crate::programs::call::{Calls, Target};
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

mod log;
mod network;

use log::Log;

/// What `trefoilctl why -o json` says.
#[derive(Debug, Deserialize)]
struct Why {
    well: bool,
    layer: Option<String>,
    reason: String,
    remedy: Option<String>,
}

/// Seconds that a refusal may take.
const PATIENCE: &str = "25";
/// Seconds that it may take where a client's plane waits for one that is away.
const AWAY: &str = "80";

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("layers"), &[]).await?;
    for (client, server) in [("ambient", "sidecar"), ("sidecar", "ambient")] {
        let client = standard.client(client)?;
        let server = standard.server(server, "n2")?;
        healthy(&standard, report, client, server).await;
        policy(&standard, report, client, server).await?;
        network::run(&standard, report, client, server).await?;
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
    let expected = Expected {
        outbound: &["layer=\"policy\"", "response_flags=\"DENY\""],
        inbound: &["layer=\"policy\"", "response_flags=\"DENY\"", &policy],
    };
    let result = logged(&standard.mesh, client, server, server.at(port::TCP), expected).await;
    report.check(format!("{route}: denied by policy, in the access logs"), result);
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

/// What the lines of the ends' planes are to say; nothing of an end whose plane is not reached.
#[derive(Clone, Copy)]
struct Expected<'a> {
    outbound: &'a [&'a str],
    inbound: &'a [&'a str],
}

/// Calls once, and reads what both planes write of it.
async fn logged(
    mesh: &Mesh,
    client: &Pod,
    server: &Pod,
    address: SocketAddr,
    expected: Expected<'_>,
) -> anyhow::Result<String> {
    logged_within(mesh, (client, server), address, expected, PATIENCE).await
}

/// The same, where the refusal takes its time.
async fn logged_within(
    mesh: &Mesh,
    (client, server): (&Pod, &Pod),
    address: SocketAddr,
    expected: Expected<'_>,
    limit: &str,
) -> anyhow::Result<String> {
    let outbound = Log::from_now(mesh, client, client)?;
    let inbound = Log::from_now(mesh, server, client)?;
    let target = format!("tcp@{address}");
    let calls: Vec<Calls> = mesh
        .program_in(client, &["call", "--limit", limit, &target])
        .await?;
    ensure!(calls[0].served() == 0, "it is served: {:?}", calls[0].outcomes);
    let mut said = outbound.says("outbound", expected.outbound).await?;
    if !expected.inbound.is_empty() {
        said = format!("{said}; {}", inbound.says("inbound", expected.inbound).await?);
    }
    Ok(said)
}

/// Nothing listens on the port.
async fn application(standard: &Standard, report: &mut Report, client: &Pod, server: &Pod) {
    let route = format!("{} → {}", name(client), name(server));
    let result = names(&standard.mesh, client, &at(server, 7777), "application", "").await;
    report.check(format!("{route}: the application is closed"), result);
    let closed = &["layer=\"application\"", "response_flags=\"CONNECT\""];
    let expected = Expected {
        outbound: closed,
        inbound: closed,
    };
    let result = logged(&standard.mesh, client, server, server.at(7777), expected).await;
    report.check(
        format!("{route}: the application is closed, in the access logs"),
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
    let route = format!("{} → a service over nobody", name(client));
    report.check(&route, result.await);
    let services: kube::Api<Service> = kube::Api::namespaced(standard.mesh.client().await?, namespace);
    let spec = services.get("nobody").await?.spec.unwrap_or_default();
    let address = spec.cluster_ip.context("the service has no address")?.parse()?;
    // It is the application's layer that nobody is of; the reason says which kind.
    let expected = Expected {
        outbound: &["layer=\"application\"", "nobody", "has no healthy endpoint"],
        inbound: &[],
    };
    let address = SocketAddr::new(address, 80);
    let result = logged(&standard.mesh, client, client, address, expected).await;
    report.check(format!("{route}, in the access log"), result);
    Ok(())
}

/// The server's plane does not answer: its sidecar, or its node's proxy, is stopped. The client's plane blames
/// that one, not itself.
async fn stopped_plane(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let sidecar = standard.server("sidecar", "n2")?;
    let process = [sidecar.sidecar.context("the pod has no sidecar")?];
    let to_sidecar = stopped(
        standard,
        standard.client("ambient")?,
        sidecar,
        "sidecar",
        &process,
    );
    let server = standard.server("ambient", "n2")?;
    let processes = [
        standard.mesh.processes_of(Part::Supervisor, "n2")?,
        standard.mesh.processes_of(Part::Worker, "n2")?,
    ]
    .concat();
    let to_node = stopped(standard, standard.client("sidecar")?, server, "node", &processes);
    // At once: a client's plane waits for a minute.
    let (to_sidecar, to_node) = tokio::join!(to_sidecar, to_node);
    for (layer, (named, said)) in [("sidecar", to_sidecar?), ("node", to_node?)] {
        report.check(format!("the server's plane ({layer}) does not answer"), named);
        report.check(
            format!("the server's plane ({layer}) does not answer, in the access log"),
            said,
        );
    }
    Ok(())
}

/// What `why` and the access log name while the processes are stopped.
type Named = (anyhow::Result<String>, anyhow::Result<String>);

async fn stopped(
    standard: &Standard,
    client: &Pod,
    server: &Pod,
    layer: &str,
    processes: &[u32],
) -> anyhow::Result<Named> {
    for process in processes {
        signal(*process, Signal::STOP)?;
    }
    let named = names(&standard.mesh, client, &at(server, port::TCP), "plane", "").await;
    let layer_field = format!("layer=\"{layer}\"");
    let expected = Expected {
        outbound: &[&layer_field, "the server's plane did not answer"],
        inbound: &[],
    };
    let ends = (client, server);
    let said = logged_within(&standard.mesh, ends, server.at(port::TCP), expected, AWAY).await;
    for process in processes {
        signal(*process, Signal::CONT)?;
    }
    Ok((named, said))
}

/// The rules in the server's namespace are gone. No plane is on the path to its application then, and none has
/// a line to write.
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
    // Whoever signs is out of reach, and the API is not.
    unreachable(&mesh).await?;
    // Expiry is a matter of the clock alone.
    tokio::time::sleep(Duration::from_secs(21)).await;
    let named = names(&mesh, &fresh, &at(&server, port::TCP), "certificate", "expired").await;
    report.check("an expired certificate", named);
    let expected = Expected {
        outbound: &[
            "layer=\"node\"",
            "response_flags=\"IDENTITY_ERROR\"",
            "the certificate of spiffe://cluster.local/ns/ambient/sa/fresh has expired",
        ],
        inbound: &[],
    };
    let said = logged(&mesh, &fresh, &server, server.at(port::TCP), expected).await;
    report.check("an expired certificate, in the access log", said);
    mesh.down().await
}

/// Nothing comes to the control plane's port for planes.
async fn unreachable(mesh: &Mesh) -> anyhow::Result<()> {
    let rules = "table inet fault {
      chain arrivals {
        type filter hook input priority 0; policy accept;
        tcp dport 15012 reject with tcp reset
      }
    }";
    let made = Command::new("ip")
        .args(["netns", "exec", &mesh.lan(), "nft", rules])
        .status()
        .await?;
    ensure!(made.success(), "nft: {made}");
    Ok(())
}
