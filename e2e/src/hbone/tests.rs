use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::client::{Ask, ask};
use crate::authority::foreign;

const CLIENT: &str = "spiffe://cluster.local/ns/a/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/a/sa/server";

fn asking(to: std::net::SocketAddr, credentials: &Path) -> Ask {
    Ask {
        to,
        authority: "10.0.0.1:9000".into(),
        credentials: credentials.into(),
        headers: vec!["baggage=x".into()],
        limit: 5,
    }
}

#[tokio::test]
async fn both_ends_read_the_others_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (client, server) = (directory.path().join("client"), directory.path().join("server"));
    foreign(&[SERVER.into()], None, &server).unwrap();
    foreign(&[CLIENT.into()], Some(&server.join("root.pem")), &client).unwrap();
    std::fs::copy(client.join("root.pem"), directory.path().join("kept")).unwrap();
    // Each trusts the other's authority.
    let client_alone = directory.path().join("alone");
    foreign(&[CLIENT.into()], None, &client_alone).unwrap();
    std::fs::rename(client_alone.join("root.pem"), server.join("root.pem")).unwrap();
    std::fs::rename(directory.path().join("kept"), client_alone.join("root.pem")).unwrap();

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let tunnels = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&tunnels);
    let credentials = server.clone();
    tokio::spawn(async move {
        super::server::serve(listener, &credentials, "one", move |tunnel| {
            told.lock().unwrap().push(tunnel.clone());
        })
        .await
    });

    let seen = ask(&asking(to, &client_alone)).await;
    assert_eq!(seen.peer, [SERVER], "{seen:?}");
    assert_eq!(seen.status, Some(200));
    assert!(seen.line.unwrap().starts_with("one 127.0.0.1:"));
    let tunnel = tunnels.lock().unwrap()[0].clone();
    assert_eq!(tunnel.certificate.uris, [CLIENT]);
    assert_eq!(tunnel.certificate.names, 1);
    assert_eq!(
        (tunnel.tls.as_str(), tunnel.protocol.as_deref()),
        ("TLSv1_3", Some("h2"))
    );
    assert_eq!(tunnel.authority, "10.0.0.1:9000");
    assert_eq!(tunnel.headers["baggage"], "x");

    // One whose authority the server does not know gets no answer.
    let seen = ask(&asking(to, &client)).await;
    assert!(seen.status.is_none() && seen.error.is_some(), "{seen:?}");
}
