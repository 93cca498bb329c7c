//! Pods that leave and proxies that finish: nothing that was established is lost, nobody is refused.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use trefoil_api::names::port;
use trefoil_dataplane_core::drain::Drained;

use crate::mesh::{Mesh, echoed, until, until_reset};

#[tokio::test]
async fn clients_that_are_asked_to_leave_come_again_in_a_new_tunnel() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let mut before = mesh.client.dial(application).await;
    echoed(&mut before, "before").await;
    mesh.at_server.retire("uid-cart");
    let mut after = mesh.client.dial(application).await;
    echoed(&mut after, "after").await;
    echoed(&mut before, "still here").await;
    until("a new tunnel", || {
        mesh.client.dialer.sockets.load(Ordering::SeqCst) == 2
    })
    .await;
}

/// The asking may cross with any number of requests: none of them fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_lost_while_clients_are_asked_to_leave() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let asking = async {
        for _ in 0..50 {
            mesh.at_server.retire("uid-cart");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let dialling = async {
        for number in 0..300 {
            let mut client = mesh.client.dial(application).await;
            echoed(&mut client, &format!("number {number}")).await;
        }
    };
    tokio::join!(asking, dialling);
}

#[tokio::test]
async fn a_removed_pod_is_served_until_its_connections_end() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let mut client = mesh.client.dial(application).await;
    echoed(&mut client, "hello").await;
    let removing = {
        let proxy = mesh.at_server.clone();
        tokio::spawn(async move { proxy.remove_pod("uid-cart").await })
    };
    let listener = mesh.server.at(port::INBOUND);
    let closed = async {
        while TcpStream::connect(listener).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed)
        .await
        .expect("listeners are closed");
    echoed(&mut client, "still here").await;
    assert!(!removing.is_finished());
    drop(client);
    let removed = tokio::time::timeout(Duration::from_secs(10), removing).await;
    removed.expect("returns once all has ended").unwrap();
}

#[tokio::test]
async fn a_drain_waits_and_then_does_not() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let mut client = mesh.client.dial(application).await;
    echoed(&mut client, "hello").await;
    let drained = mesh.drain.drain(Duration::from_millis(200)).await;
    assert!(matches!(drained, Drained::Forced { .. }), "{drained:?}");
    until_reset(&mut client).await;
    until("all connections are gone", || {
        mesh.at_server.connections().is_empty()
    })
    .await;
}
