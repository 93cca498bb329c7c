//! The way through the waypoint, and that there is no way around it.

use tokio::net::TcpStream;

use crate::fixture::{Guard, Guarded, allow};
use crate::lines::LINES;
use crate::mesh::{deny, echoed, until, until_reset};

/// Every way to reach the server from the client, by its name.
pub(crate) async fn ways(guarded: &Guarded) -> Vec<(&'static str, TcpStream)> {
    let (mesh, application) = (&guarded.mesh, guarded.application);
    vec![
        ("its service", mesh.client.dial(guarded.service).await),
        ("its pod", mesh.client.dial(application).await),
        (
            "plaintext",
            mesh.server.plaintext(&mesh.client, application).await,
        ),
    ]
}

#[tokio::test]
async fn whatever_the_way_it_is_through_the_waypoint_and_as_the_client() {
    for guarded in [Guarded::new().await, Guarded::same_node().await] {
        let (mesh, lines) = (&guarded.mesh, &*LINES);
        for (index, (way, mut stream)) in ways(&guarded).await.into_iter().enumerate() {
            echoed(&mut stream, "hello").await;
            drop(stream);
            let line = lines.of(mesh, "through", index + 1).await.remove(index);
            let client = (way != "plaintext").then(|| mesh.client.identity().to_string());
            assert_eq!(line.get("src.identity"), client.as_ref(), "{way}: {line:?}");
            assert_eq!(line.contains_key("src.workload"), client.is_some(), "{way}");
            assert_eq!(line["dst.identity"], mesh.server.identity().to_string());
            assert_eq!(line["dst.addr"], guarded.application.to_string(), "{way}");
            assert_eq!(
                (line["bytes_sent"].as_str(), line["bytes_recv"].as_str()),
                ("5", "5")
            );
            assert_eq!(line["response_flags"], "-");
        }
        // At the server's end: once each, and once more for what was handed over, which says where to.
        let at_server = lines.of(mesh, "inbound", 5).await;
        let handed = at_server.iter().filter(|line| line.contains_key("handed_to"));
        assert_eq!(handed.count(), 2);
        let delivered: Vec<_> = at_server
            .iter()
            .filter(|line| !line.contains_key("handed_to"))
            .collect();
        let identities = delivered.iter().map(|line| line.contains_key("src.identity"));
        assert_eq!(identities.collect::<Vec<_>>(), [true, true, false]);
        // Which is no reason to count it twice.
        let opened =
            |line: &&str| line.starts_with("istio_tcp_connections_opened_total{reporter=\"destination\"");
        let metrics = mesh.metrics();
        let counts = metrics.lines().filter(opened).map(|line| {
            let count = line.rsplit(' ').next().unwrap();
            count.parse::<u64>().unwrap()
        });
        assert_eq!(counts.sum::<u64>(), 3, "{metrics}");
    }
}

/// The waypoint's own identity is nothing to policy at the server: it speaks for its clients.
#[tokio::test]
async fn policy_is_of_the_client_and_is_enforced_at_the_waypoint() {
    for guarded in [Guarded::new().await, Guarded::same_node().await] {
        let (mesh, lines) = (&guarded.mesh, &*LINES);
        mesh.policies(&[
            allow("only-web", &mesh.client.identity()),
            deny("no-door", &guarded.door.pod.identity()),
            deny("no-cart", &mesh.server.identity()),
        ]);
        for (way, mut stream) in ways(&guarded).await {
            match way {
                "plaintext" => until_reset(&mut stream).await,
                _ => echoed(&mut stream, way).await,
            }
        }
        lines.of(mesh, "through", 3).await;
        // Nobody is not web, but only web was allowed.
        mesh.policies(&[deny("no-web", &mesh.client.identity())]);
        for (_, mut stream) in ways(&guarded).await {
            until_reset(&mut stream).await;
        }
        let denied = lines.of(mesh, "through", 6).await;
        let mut by: Vec<_> = denied
            .iter()
            .filter(|line| line["response_flags"] == "DENY")
            .map(|line| (line["layer"].as_str(), line["policy"].as_str()))
            .collect();
        by.sort_unstable();
        assert_eq!(
            by,
            [
                ("policy", "shop/no-web"),
                ("policy", "shop/no-web"),
                ("policy", "shop/only-web"),
                ("policy", "shop/only-web"),
            ]
        );
    }
}

#[tokio::test]
async fn a_policy_that_comes_later_cuts_what_it_denies_at_the_waypoint() {
    for guarded in [Guarded::new().await, Guarded::same_node().await] {
        let mesh = &guarded.mesh;
        let mut open = ways(&guarded).await;
        for (way, stream) in &mut open {
            echoed(stream, way).await;
        }
        mesh.policies(&[deny("no-web", &mesh.client.identity())]);
        for (way, stream) in &mut open {
            match *way {
                "plaintext" => echoed(stream, "still here").await,
                _ => until_reset(stream).await,
            }
        }
    }
}

#[tokio::test]
async fn without_its_waypoint_nobody_reaches_a_workload() {
    for guarded in [Guarded::new().await, Guarded::same_node().await] {
        let (mesh, lines) = (&guarded.mesh, &*LINES);
        guarded.known_waypoint(&guarded.door, false);
        for (_, mut stream) in ways(&guarded).await {
            until_reset(&mut stream).await;
        }
        // Whoever dials the waypoint waits for better news before it gives up, so that its line may be the second.
        let at_client = lines.of(mesh, "outbound", 2).await;
        let dialled = at_client.iter().find(|line| line["layer"] == "waypoint");
        let at_server = lines.of(mesh, "inbound", 2).await;
        for line in [dialled.expect("a line"), &at_server[0], &at_server[1]] {
            assert_eq!(line["layer"], "waypoint", "{line:?}");
            assert_eq!(line["response_flags"], "CONNECT");
            assert!(line["reason"].contains(&guarded.door.key()), "{line:?}");
        }

        // Healthy, for all that is known, but gone.
        guarded.known_waypoint(&guarded.door, true);
        guarded.door.drain.force();
        guarded.door.drain.drain(std::time::Duration::ZERO).await;
        for (_, mut stream) in ways(&guarded).await {
            until_reset(&mut stream).await;
        }
        let at_client = lines.of(mesh, "outbound", 4).await;
        let mut dialled = at_client[2..].iter();
        assert!(dialled.any(|line| line["layer"] == "waypoint"), "{at_client:?}");
        let at_server = lines.of(mesh, "inbound", 4).await;
        for line in &at_server[2..] {
            assert_eq!(line["layer"], "waypoint", "{line:?}");
        }
    }
}

#[tokio::test]
async fn nobody_passes_a_guard_that_is_closed() {
    for guarded in [Guarded::new().await, Guarded::same_node().await] {
        let (mesh, lines) = (&guarded.mesh, &*LINES);
        let mut before = ways(&guarded).await;
        for (way, stream) in &mut before {
            echoed(stream, way).await;
        }
        guarded.guard(
            &mesh.server,
            Guard::Closed("cart and books have different waypoints"),
        );
        for (_, stream) in &mut before {
            until_reset(stream).await;
        }
        for (_, mut stream) in ways(&guarded).await {
            until_reset(&mut stream).await;
        }
        let refused = lines.of(mesh, "through", 4).await.remove(3);
        assert_eq!(
            refused["reason"],
            "closed: cart and books have different waypoints"
        );
        assert_eq!(refused["layer"], "policy");
    }
}

/// A waypoint comes and goes while connections are open.
#[tokio::test]
async fn what_is_open_stays_open_when_a_waypoint_is_made_and_removed() {
    for guarded in [Guarded::new().await, Guarded::same_node().await] {
        let mesh = &guarded.mesh;
        let mut open = ways(&guarded).await;
        for (way, stream) in &mut open {
            echoed(stream, way).await;
        }
        guarded.known_service(None);
        guarded.guard(&mesh.server, Guard::Nobody);
        for (way, stream) in &mut ways(&guarded).await {
            echoed(stream, way).await;
        }
        let mut without = ways(&guarded).await;
        for (way, stream) in &mut without {
            echoed(stream, way).await;
        }
        guarded.guard(&mesh.server, Guard::By(&guarded.door));
        guarded.known_service(Some(&guarded.door));
        for (way, stream) in open.iter_mut().chain(&mut without) {
            echoed(stream, way).await;
        }
    }
}

#[tokio::test]
async fn a_waypoint_that_leaves_asks_its_clients_to_and_finishes_what_is_open() {
    let guarded = Guarded::new().await;
    let mesh = &guarded.mesh;
    let mut open = mesh.client.dial(guarded.service).await;
    echoed(&mut open, "hello").await;
    guarded.known_waypoint(&guarded.door, false);
    let another = guarded.another();
    guarded.guard(&mesh.server, Guard::By(&another));
    guarded.known_service(Some(&another));
    guarded.door.drain.begin();
    echoed(&mut open, "still here").await;
    let mut new = mesh.client.dial(guarded.service).await;
    echoed(&mut new, "hello").await;
    drop(open);
    until("the waypoint has drained", || {
        guarded.door.proxy.connections().is_empty()
    })
    .await;
}
