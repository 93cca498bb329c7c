//! What is reported of connections.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use trefoil_dataplane_core::proxy::ProxyConfig;

use crate::mesh::{Mesh, config, deny, echoed, until, until_reset};

pub(crate) type Line = BTreeMap<&'static str, String>;

/// The access log of this process: a subscriber of one test would not hear all that others make known first.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<Line>>>);

pub(crate) static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::set_global_default(subscriber).expect("only here");
    lines
});

struct Fields<'l>(&'l mut Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0
            .insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "access" && *event.metadata().level() <= tracing::Level::INFO {
            let mut line = Line::new();
            event.record(&mut Fields(&mut line));
            self.0.lock().unwrap().push(line);
        }
    }
}

impl Lines {
    /// The lines of a mesh's connections in one direction, once there are as many as expected.
    pub(crate) async fn of(&self, mesh: &Mesh, direction: &str, count: usize) -> Vec<Line> {
        let client = format!("{}:", mesh.client.address);
        let found = || -> Vec<Line> {
            let lines = self.0.lock().unwrap();
            let of_mesh =
                |line: &&Line| line["direction"] == direction && line["src.addr"].starts_with(&client);
            lines.iter().filter(of_mesh).cloned().collect()
        };
        until("the lines are written", || found().len() >= count).await;
        assert_eq!(found().len(), count, "exactly one line each");
        found()
    }
}

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
