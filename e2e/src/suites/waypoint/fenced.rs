//! A NetworkPolicy of a pod that has a waypoint: it is asked about the client, not about the waypoint that the client's
//! connection comes from.

use anyhow::ensure;

use super::{GUARDED, SOON, virtual_address};
use crate::mesh::eventually;
use crate::mesh::standard::{NAMESPACES, Standard};
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    for server in GUARDED {
        for who in NAMESPACES {
            mesh.apply(&format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: fence, namespace: {server}}}\n\
                 spec: {{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: \
                 [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {who}}}}}}}], \
                 ports: [{{port: {}}}, {{port: 15008}}]}}]}}\n",
                port::HTTP
            ))
            .await?;
            let result = served_for(standard, server, |client| client == who).await;
            report.check(
                format!("{server}, behind a waypoint and a NetworkPolicy for {who}"),
                result,
            );
        }
        mesh.delete("networkpolicy", server, "fence").await?;
        let result = served_for(standard, server, |_| true).await;
        report.check(format!("{server}, behind a waypoint alone"), result);
    }
    Ok(())
}

/// Waits until exactly these clients are served, by the service and by a pod of it.
async fn served_for(
    standard: &Standard,
    server: &str,
    is_served: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let service = virtual_address(&standard.mesh, server, "server", 80).await?;
    let itself = standard.server(server, "n2")?.at(port::HTTP);
    let targets = [service, itself].map(|address| Target {
        protocol: Protocol::H1,
        address,
    });
    eventually(SOON, async || {
        for client in NAMESPACES {
            let calls = standard.call_from(standard.client(client)?, &targets, 5).await?;
            for calls in &calls {
                let expected = if is_served(client) { 5 } else { 0 };
                ensure!(
                    calls.served() == expected,
                    "{client}: {} of 5 served: {:?}",
                    calls.served(),
                    calls.outcomes
                );
            }
        }
        Ok(())
    })
    .await?;
    let served: Vec<&str> = NAMESPACES
        .into_iter()
        .filter(|client| is_served(client))
        .collect();
    Ok(format!("10 of 10 served of {served:?}, 0 of 10 of each other"))
}
