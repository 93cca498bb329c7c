//! Who gets through, and who does not.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use tokio::io::AsyncReadExt;

use trefoil_dataplane_core::proxy::ProxyConfig;

use crate::mesh::{Mesh, config, deny, echoed, until, until_reset};

#[tokio::test]
async fn policy_denies_whom_it_names() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let application = mesh.server.echo().await;
        mesh.policies(&[deny("no-web", &mesh.client.identity())]);
        until_reset(&mut mesh.client.dial(application).await).await;
        // Plaintext has no identity that the policy could name.
        let mut plain = mesh.server.plaintext(&mesh.client, application).await;
        echoed(&mut plain, "hello").await;
    }
}

#[tokio::test]
async fn a_policy_that_comes_later_cuts_what_it_denies() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let application = mesh.server.echo().await;
        let mut client = mesh.client.dial(application).await;
        let mut plain = mesh.server.plaintext(&mesh.client, application).await;
        echoed(&mut client, "hello").await;
        echoed(&mut plain, "hello").await;
        mesh.policies(&[deny("no-web", &mesh.client.identity())]);
        until_reset(&mut client).await;
        echoed(&mut plain, "still here").await;
    }
}

/// A pod that no NetworkPolicy selected may be reached from socket to socket: what came so is cut, too.
#[tokio::test]
async fn a_network_policy_that_comes_later_cuts_what_it_does_not_let_in() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let (allowed, other) = (mesh.server.echo().await, mesh.server.echo().await);
        let mut client = mesh.client.dial(allowed).await;
        let mut cut = mesh.client.dial(other).await;
        let mut plain = mesh.server.plaintext(&mesh.client, other).await;
        for stream in [&mut client, &mut cut, &mut plain] {
            echoed(stream, "hello").await;
        }
        mesh.fence(allowed.port());
        until_reset(&mut cut).await;
        until_reset(&mut mesh.client.dial(other).await).await;
        echoed(&mut client, "still here").await;
        echoed(&mut mesh.client.dial(allowed).await, "hello").await;
        echoed(&mut plain, "still here").await;
    }
}

/// Between reading what decides and registering, a change would find nothing to cut.
#[tokio::test]
async fn a_connection_is_registered_before_its_server_is_read() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    mesh.forget(&mesh.server);
    let mut plain = mesh.server.plaintext(&mesh.client, application).await;
    until("it is registered while its server is not known", || {
        mesh.at_server.connections().len() == 1
    })
    .await;
    mesh.learn(&mesh.server);
    echoed(&mut plain, "hello").await;
}

#[tokio::test]
async fn an_application_that_is_not_there_is_a_reset() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let nobody: SocketAddr = {
            let listener = mesh.server.listen().await;
            listener.local_addr().unwrap()
        };
        until_reset(&mut mesh.client.dial(nobody).await).await;
        until_reset(&mut mesh.server.plaintext(&mesh.client, nobody).await).await;
    }
}

#[tokio::test]
async fn who_dials_a_plane_itself_is_refused() {
    let mesh = Mesh::new().await;
    for port in [15001, 15006] {
        let listener = mesh.server.at(port);
        let mut direct = mesh.client.captured(listener, listener).await;
        until_reset(&mut direct).await;
        let mut looped = mesh.server.plaintext(&mesh.client, listener).await;
        until_reset(&mut looped).await;
    }
}

/// What comes for a pod is for an address of the pod: a plane is no relay to anywhere else.
#[tokio::test]
async fn plaintext_to_an_address_that_is_not_the_pods_goes_nowhere() {
    let mesh = Mesh::new().await;
    let loopback = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let another = mesh.client.echo().await;
    for elsewhere in [loopback.local_addr().unwrap(), another] {
        until_reset(&mut mesh.server.plaintext(&mesh.client, elsewhere).await).await;
    }
    assert!(futures::poll!(std::pin::pin!(loopback.accept())).is_pending());
}

#[tokio::test]
async fn what_is_not_of_the_mesh_is_passed_through() {
    let mesh = Mesh::new().await;
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = mesh.client.dial(outside.local_addr().unwrap()).await;
    let (accepted, from) = outside.accept().await.unwrap();
    assert_eq!(from.ip(), mesh.client.address);
    drop(accepted);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    mesh.store.set_registry_only(true);
    until_reset(&mut mesh.client.dial(outside.local_addr().unwrap()).await).await;
}

/// A flood waits at its own listener, and is counted; nothing that comes the other way is held up by it.
#[tokio::test]
async fn connections_beyond_the_budget_wait_until_others_end() {
    let few = ProxyConfig {
        connections: 2,
        ..config()
    };
    let mesh = Mesh::with(few, false).await;
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = outside.local_addr().unwrap();
    let mut first = mesh.client.dial(destination).await;
    let (first_accepted, _) = outside.accept().await.unwrap();
    let _second = mesh.client.dial(destination).await;
    let _second_accepted = outside.accept().await.unwrap();

    let _third = mesh.client.dial(destination).await;
    let exhausted =
        "trefoil_budget_exhausted_total{workload=\"Kubernetes//Pod/shop/web\",budget=\"outbound\"}";
    until("the flood is counted", || mesh.metrics().contains(exhausted)).await;
    assert!(futures::poll!(std::pin::pin!(outside.accept())).is_pending());

    let application = mesh.client.echo().await;
    let mut arriving = mesh.client.plaintext(&mesh.server, application).await;
    echoed(&mut arriving, "hello").await;

    drop(first_accepted);
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    drop(first);
    outside.accept().await.unwrap();
}

/// On the same node too, a server has so many connections and no more.
#[tokio::test]
async fn the_same_node_is_no_way_around_the_servers_budget() {
    let few = ProxyConfig {
        connections: 3,
        ..config()
    };
    let mesh = Mesh::with(few, true).await;
    let application = mesh.server.echo().await;
    // The accept loop holds a place.
    let mut first = mesh.server.plaintext(&mesh.client, application).await;
    echoed(&mut first, "hello").await;
    let mut second = mesh.server.plaintext(&mesh.client, application).await;
    echoed(&mut second, "hello").await;
    let refused = |line: &str| line.contains("reporter=\"destination\"") && line.contains("same_node");
    let failed = |shown: String| {
        shown
            .lines()
            .any(|line| line.contains("connections_failed") && refused(line))
    };
    let mut beyond = mesh.client.dial(application).await;
    until("the refusal is counted", || failed(mesh.metrics())).await;
    until_reset(&mut beyond).await;
}

#[tokio::test]
async fn on_the_same_node_nothing_is_encrypted_to_oneself() {
    let mesh = Mesh::same_node().await;
    let application = mesh.server.echo().await;
    let mut client = mesh.client.dial(application).await;
    echoed(&mut client, "hello").await;
    assert_eq!(
        mesh.client.dialer.sockets.load(Ordering::SeqCst),
        0,
        "no tunnel was dialled"
    );
    let there = mesh.at_client.connections();
    let inbound = there.iter().find(|connection| connection.peer.is_some()).unwrap();
    assert_eq!(inbound.path, "same_node");
    assert_eq!(inbound.peer, Some(mesh.client.identity().to_string()));
    drop(client);
    until("connections are forgotten", || {
        mesh.at_client.connections().is_empty()
    })
    .await;
}
