//! The way from this machine's loopback to the API server, which lives in a network namespace of its own.
//! It moves bytes and knows nothing of them.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};

use super::mesh::{API_PORT, LAN_V4, Mesh};
use super::network::connect_in;

/// A listener on loopback whose connections are carried to the API server.
pub(crate) async fn start(mesh: &Mesh) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("listening on 127.0.0.1")?;
    let port = listener.local_addr()?.port();
    let netns = mesh.lan_netns();
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(carry(stream, netns.clone()))),
                // Out of descriptors, most likely: others must end first.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    });
    Ok(port)
}

async fn carry(mut client: TcpStream, netns: String) {
    match connect_in(&netns, IpAddr::V4(LAN_V4), API_PORT).await {
        Ok(mut server) => {
            // Whatever ends it, the client sees it end.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Err(error) => tracing::debug!("the API server cannot be reached: {error:#}"),
    }
}
