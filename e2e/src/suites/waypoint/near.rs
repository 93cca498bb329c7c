//! A waypoint on one node, clients on the other, and endpoints on both: those on the client's node answer, not those on
//! the waypoint's, and the others when they are gone.

use anyhow::ensure;

use super::{GUARDED, SOON, virtual_address, waypoints};
use crate::mesh::standard::Standard;
use crate::mesh::{Pod, PodPlan, eventually};
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::{Outcome, Protocol};
use crate::report::Report;

/// Calls of each check, of each protocol.
const CALLS: usize = 20;

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let nodes: Vec<String> = waypoints(standard, "ambient")
        .await?
        .into_iter()
        .map(|pod| pod.node)
        .collect();
    ensure!(nodes == ["n1"], "the waypoint is on {nodes:?}, not on n1 alone");
    mesh.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: near, namespace: ambient}}\n\
         spec: {{selector: {{app: near}}, ports: [{{name: http, port: 80, targetPort: {}}}, {{name: tcp, port: {}}}]}}\n",
        port::HTTP,
        port::TCP
    ))
    .await?;
    let program = mesh.program()?;
    let mut endpoints = Vec::new();
    for node in ["n1", "n2"] {
        let name = format!("near-{node}");
        let plan = PodPlan {
            namespace: "ambient".into(),
            name: name.clone(),
            node: node.into(),
            account: "server".into(),
            labels: vec!["app=near".into()],
            ports: vec![port::HTTP, port::TCP],
            ..PodPlan::default()
        };
        let command = [program.as_str(), "serve", "--name", &name];
        endpoints.push(mesh.run(&plan, &command).await?);
    }
    let mut clients = Vec::new();
    for namespace in GUARDED {
        clients.push(standard.run_client(namespace, "beyond", "client", "n2").await?);
    }
    for client in &clients {
        let result = answered_by(standard, client, "near-n2").await;
        report.check(
            format!(
                "{}: the endpoint on the client's node, past a waypoint on the other",
                client.namespace
            ),
            result,
        );
    }
    mesh.end(&endpoints[1]).await?;
    for client in &clients {
        let result = answered_by(standard, client, "near-n1").await;
        report.check(
            format!("{}: the other endpoint once that is gone", client.namespace),
            result,
        );
    }
    for pod in clients.iter().chain(&endpoints[..1]) {
        mesh.end(pod).await?;
    }
    Ok(())
}

async fn answered_by(standard: &Standard, client: &Pod, name: &str) -> anyhow::Result<String> {
    let address = async |port| virtual_address(&standard.mesh, "ambient", "near", port).await;
    let (http, bytes) = (address(80).await?, address(port::TCP).await?);
    let ways = [
        (Protocol::H1, http),
        (Protocol::Grpc, http),
        (Protocol::Tcp, bytes),
    ];
    let targets = ways.map(|(protocol, address)| Target { protocol, address });
    let by = |outcome: &Outcome| matches!(outcome, Outcome::Served(answer) if answer.server == name);
    eventually(SOON, async || {
        for calls in standard.call_from(client, &targets, CALLS).await? {
            ensure!(
                calls.outcomes.iter().all(by),
                "{}: {:?}",
                calls.target.protocol,
                calls.outcomes
            );
        }
        Ok(format!(
            "{CALLS} of {CALLS} each of requests, gRPC calls and connections of bytes by {name}"
        ))
    })
    .await
}
