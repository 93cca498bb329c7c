//! Mesh-wide settings in force while connections come and go, and whom a service's server may be.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use trefoil_api::Identity;
use trefoil_api::proto::trefoil::v1::Outbound;

use crate::lines::LINES;
use crate::mesh::{Mesh, echoed, until_reset};

#[tokio::test]
async fn registry_only_is_switched_on_and_off_live() {
    let mesh = Mesh::new().await;
    let lines = LazyLock::force(&LINES);
    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = outside.local_addr().unwrap();
    let known = mesh.server.echo().await;
    let passes = async || {
        let mut client = mesh.client.dial(destination).await;
        drop(outside.accept().await.unwrap());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    };
    passes().await;

    mesh.settings(Outbound::RegistryOnly, 3600);
    until_reset(&mut mesh.client.dial(destination).await).await;
    let reason =
        format!("{destination} is not known, and only what is known may be reached (outbound: RegistryOnly)");
    let ended = lines.of(&mesh, "outbound", 2).await;
    assert!(
        ended.iter().any(|line| line.get("reason") == Some(&reason)),
        "{ended:?}"
    );
    echoed(&mut mesh.client.dial(known).await, "hello").await;

    mesh.settings(Outbound::AllowAny, 3600);
    passes().await;
}

#[tokio::test]
async fn the_age_of_tunnels_is_what_the_settings_say_when_they_are_made() {
    let mesh = Mesh::new().await;
    mesh.settings(Outbound::AllowAny, 1);
    let application = mesh.server.echo().await;
    let mut first = mesh.client.dial(application).await;
    echoed(&mut first, "hello").await;
    let replaced = async {
        while mesh.client.dialer.sockets.load(Ordering::SeqCst) < 2 {
            echoed(&mut mesh.client.dial(application).await, "hello").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), replaced)
        .await
        .expect("another tunnel");
    echoed(&mut first, "still here").await;
}

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).unwrap()
}

#[tokio::test]
async fn a_server_may_be_whom_its_service_names_and_nobody_else() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    // The server's plane proves to be `cart`, whatever its workload is said to be.
    let service = mesh.service("other", &[identity("cart")], application.port());
    echoed(&mut mesh.client.dial(service).await, "hello").await;
    // By its own address nobody named another: the tunnel that there is may not be shared either.
    until_reset(&mut mesh.client.dial(application).await).await;
    // Nor where the service does not name it any more.
    let service = mesh.service("other", &[identity("stranger")], application.port());
    until_reset(&mut mesh.client.dial(service).await).await;
}
