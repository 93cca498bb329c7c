//! What is reported of connections.

use trefoil_dataplane_core::proxy::ProxyConfig;

use crate::lines::LINES;
use crate::mesh::{Mesh, config, deny, echoed, until, until_reset};

#[tokio::test]
async fn every_connection_leaves_one_line_at_each_end() {
    for (mesh, path) in [
        (Mesh::new().await, "mutual_tls"),
        (Mesh::same_node().await, "same_node"),
    ] {
        let lines = &*LINES;
        let application = mesh.server.echo().await;
        let mut client = mesh.client.dial(application).await;
        echoed(&mut client, "hello").await;
        drop(client);
        for direction in ["outbound", "inbound"] {
            let line = &lines.of(&mesh, direction, 1).await[0];
            assert_eq!(line["peer"], path);
            assert_eq!(line["src.identity"], mesh.client.identity().to_string());
            assert_eq!(line["dst.identity"], mesh.server.identity().to_string());
            assert_eq!(line["src.workload"], "web");
            assert_eq!(line["dst.workload"], "cart");
            assert_eq!(line["dst.addr"], application.to_string());
            assert_eq!(
                (line["bytes_sent"].as_str(), line["bytes_recv"].as_str()),
                ("5", "5")
            );
            assert_eq!(line["response_flags"], "-");
            assert!(!line.contains_key("error"), "{line:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_names_layer_policy_and_reason() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let lines = &*LINES;
        let application = mesh.server.echo().await;
        mesh.policies(&[deny("no-web", &mesh.client.identity())]);
        until_reset(&mut mesh.client.dial(application).await).await;
        let at_server = &lines.of(&mesh, "inbound", 1).await[0];
        assert_eq!(at_server["layer"], "policy");
        assert_eq!(at_server["policy"], "shop/no-web");
        assert_eq!(at_server["response_flags"], "DENY");
        assert!(at_server["reason"].contains("shop/no-web"), "{at_server:?}");
        let at_client = &lines.of(&mesh, "outbound", 1).await[0];
        assert_eq!(
            (at_client["layer"].as_str(), at_client["response_flags"].as_str()),
            ("policy", "DENY")
        );

        mesh.server.listen().await;
        let nobody = mesh.server.listen().await.local_addr().unwrap();
        mesh.policies(&[deny("no-web", &mesh.server.identity())]);
        until_reset(&mut mesh.client.dial(nobody).await).await;
        for direction in ["inbound", "outbound"] {
            let line = &lines.of(&mesh, direction, 2).await[1];
            assert_eq!(
                (line["layer"].as_str(), line["response_flags"].as_str()),
                ("application", "CONNECT")
            );
        }
    }
}

#[tokio::test]
async fn what_a_dry_run_policy_would_have_denied_is_allowed_and_told() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let lines = &*LINES;
        let application = mesh.server.echo().await;
        let mut tried = deny("tried", &mesh.client.identity());
        tried.dry_run = true;
        let mut other = deny("other", &mesh.server.identity());
        other.dry_run = true;
        mesh.policies(&[tried, other]);
        let mut client = mesh.client.dial(application).await;
        echoed(&mut client, "hello").await;
        drop(client);
        let line = &lines.of(&mesh, "inbound", 1).await[0];
        assert_eq!(line["audit"], "shop/tried");
        assert_eq!(line["response_flags"], "-");
        let counted = "trefoil_policy_audit_denied_total{policy=\"shop/tried\"} 1";
        assert!(mesh.metrics().contains(counted), "{}", mesh.metrics());
    }
}

#[tokio::test]
async fn connections_and_bytes_are_counted_at_both_ends() {
    let mesh = Mesh::same_node().await;
    let application = mesh.server.echo().await;
    let mut client = mesh.client.dial(application).await;
    echoed(&mut client, "hello").await;
    drop(client);
    until("connections are forgotten", || {
        mesh.at_client.connections().is_empty()
    })
    .await;
    let shown = mesh.metrics();
    for name in [
        "connections_opened",
        "connections_closed",
        "received_bytes",
        "sent_bytes",
    ] {
        for reporter in ["source", "destination"] {
            let line = shown
                .lines()
                .find(|line| line.starts_with(&format!("istio_tcp_{name}_total{{reporter=\"{reporter}\"")))
                .unwrap_or_else(|| panic!("{name} of {reporter} in {shown}"));
            assert!(
                line.contains("source_principal=\"spiffe://cluster.local/ns/shop/sa/web\""),
                "{line}"
            );
            assert!(line.contains("destination_workload=\"cart\""), "{line}");
            assert!(
                line.contains("connection_security_policy=\"same_node\""),
                "{line}"
            );
            let expected = if name.contains("bytes") { " 5" } else { " 1" };
            assert!(line.ends_with(expected), "{line}");
        }
    }
}

/// The plane that should have been there, not the one that looked for it.
#[tokio::test]
async fn a_plane_that_does_not_answer_is_the_layer_at_fault() {
    let looking = ProxyConfig {
        plane: trefoil_dataplane_core::telemetry::Layer::Sidecar,
        ..config()
    };
    let mesh = Mesh::with(looking, false).await;
    let lines = &*LINES;
    let application = mesh.server.echo().await;
    mesh.at_server.remove_pod("uid-cart").await;
    until_reset(&mut mesh.client.dial(application).await).await;
    let line = &lines.of(&mesh, "outbound", 1).await[0];
    assert_eq!(
        (line["layer"].as_str(), line["response_flags"].as_str()),
        ("node", "CONNECT"),
        "{line:?}"
    );
}
