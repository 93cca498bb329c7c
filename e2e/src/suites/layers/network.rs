//! A NetworkPolicy that names a port of the application, and that no network plugin enforces here: what comes out of a
//! tunnel is let in by that port, and neither by the tunnel's nor by any other.

use std::time::Duration;

use anyhow::ensure;

use super::{Expected, at, logged, name, names};
use crate::mesh::Pod;
use crate::mesh::eventually;
use crate::mesh::standard::Standard;
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

/// Where tunnels arrive.
const TUNNELS: u16 = 15008;

/// For the servers of a namespace: from the pods of another, at one port.
fn fence(namespace: &str, from: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: fence, namespace: {namespace}}}\n\
         spec: {{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress], ingress: [{{from: \
         [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {from}}}}}}}], ports: [{{port: {port}}}]}}]}}\n"
    )
}

/// Waits until a client is served at exactly these of the ports that the server listens on.
async fn served_at(
    standard: &Standard,
    client: &Pod,
    server: &Pod,
    expected: &[u16],
) -> anyhow::Result<String> {
    let target = |port| Target {
        protocol: if port == port::TCP {
            Protocol::Tcp
        } else {
            Protocol::H1
        },
        address: server.at(port),
    };
    let ports = [port::HTTP, port::TCP];
    let targets = ports.map(target);
    eventually(Duration::from_secs(20), async || {
        let calls = standard.call_from(client, &targets, 1).await?;
        for (port, calls) in ports.iter().zip(&calls) {
            let served = calls.served() > 0;
            ensure!(
                served == expected.contains(port),
                "port {port}: {:?}",
                calls.outcomes
            );
        }
        Ok(())
    })
    .await?;
    Ok(format!("served at {expected:?} of {ports:?}"))
}

pub(super) async fn run(
    standard: &Standard,
    report: &mut Report,
    client: &Pod,
    server: &Pod,
) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let namespace = &server.namespace;
    let route = format!("{} → {}", name(client), name(server));
    mesh.apply(&fence(namespace, &client.namespace, port::TCP))
        .await?;
    let result = served_at(standard, client, server, &[port::TCP]).await;
    report.check(format!("{route}: a NetworkPolicy for one port"), result);

    mesh.apply(&fence(namespace, "none", port::TCP)).await?;
    let result = served_at(standard, client, server, &[]).await;
    report.check(format!("{route}: a NetworkPolicy for others"), result);
    let policy = format!("NetworkPolicy {namespace}/fence");
    let result = names(mesh, client, &at(server, port::TCP), "policy", &policy).await;
    report.check(format!("{route}: denied by a NetworkPolicy"), result);
    let expected = Expected {
        outbound: &["layer=\"policy\"", "response_flags=\"DENY\""],
        inbound: &["layer=\"policy\"", "response_flags=\"DENY\"", &policy],
    };
    let result = logged(mesh, client, server, server.at(port::TCP), expected).await;
    report.check(
        format!("{route}: denied by a NetworkPolicy, in the access logs"),
        result,
    );

    mesh.apply(&fence(namespace, &client.namespace, TUNNELS)).await?;
    let result = served_at(standard, client, server, &[]).await;
    report.check(format!("{route}: a NetworkPolicy for tunnels alone"), result);

    mesh.delete("networkpolicy", namespace, "fence").await?;
    let result = served_at(standard, client, server, &[port::HTTP, port::TCP]).await;
    report.check(format!("{route}: no NetworkPolicy"), result);
    Ok(())
}
