//! Certificates and roots that are replaced under connections that last: no byte is lost, and what comes later
//! shows and believes only what is current.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use trefoil_api::Identity;
use trefoil_dataplane_state::certificates::{Certificates, Settings};

use crate::mesh::{Authority, Mesh, Root, config, echoed, until};
use crate::raw::{client_to_server, connect};

/// Of all certificates here; they are renewed at the half of it.
const LIFETIME: Duration = Duration::from_secs(3);

fn serial(mesh: &Mesh, identity: &Identity) -> String {
    let identity = identity.to_string();
    let summaries = mesh.certificates.summaries();
    let of_identity = summaries.iter().find(|summary| summary.identity == identity);
    of_identity
        .and_then(|summary| summary.serial.clone())
        .unwrap_or_default()
}

/// Both ends' certificates are replaced, while bytes go over a connection.
async fn renewed(mesh: &Mesh, live: &mut TcpStream) {
    let ends = [mesh.client.identity(), mesh.server.identity()];
    let before = ends.clone().map(|identity| serial(mesh, &identity));
    let renewing = async {
        let mut number = 0;
        while ends
            .iter()
            .zip(&before)
            .any(|(end, before)| serial(mesh, end) == *before)
        {
            echoed(live, &format!("number {number}")).await;
            number += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let renewing = tokio::time::timeout(2 * LIFETIME, renewing).await;
    renewing.expect("certificates are renewed");
}

/// A new connection in a tunnel of its own.
async fn in_a_new_tunnel(mesh: &Mesh, application: std::net::SocketAddr) -> TcpStream {
    let before = mesh.client.dialer.sockets.load(Ordering::SeqCst);
    mesh.at_server.retire("uid-cart");
    let mut client = mesh.client.dial(application).await;
    echoed(&mut client, "hello").await;
    drop(client);
    until("a new tunnel", || {
        mesh.client.dialer.sockets.load(Ordering::SeqCst) > before
    })
    .await;
    let mut client = mesh.client.dial(application).await;
    echoed(&mut client, "hello").await;
    client
}

#[tokio::test]
async fn a_connection_outlasts_the_certificates_that_it_began_with() {
    let mesh = Mesh::certified_for(LIFETIME, config(), false).await;
    let application = mesh.server.echo().await;
    let mut live = mesh.client.dial(application).await;
    echoed(&mut live, "hello").await;
    let began = Instant::now();
    while began.elapsed() < LIFETIME + Duration::from_secs(1) {
        renewed(&mesh, &mut live).await;
    }
    // Whoever showed the first certificate now would be refused: it has expired.
    let mut later = in_a_new_tunnel(&mesh, application).await;
    echoed(&mut later, "later").await;
    echoed(&mut live, "still here").await;
}

#[tokio::test]
async fn roots_are_replaced_by_overlap() {
    let mesh = Mesh::certified_for(LIFETIME, config(), false).await;
    let application = mesh.server.echo().await;
    let mut live = mesh.client.dial(application).await;
    echoed(&mut live, "hello").await;
    let (old, new) = (&mesh.root, &Root::new());
    // Someone whose certificates are of the old root for long, and who believes both.
    let behind = Arc::new(Authority::new(old, Duration::from_secs(3600)));
    behind.change(old, &[old, new]);
    let behind = Certificates::new(behind, Settings::default());

    for (signing, handed_out) in [(old, &[old, new][..]), (new, &[old, new]), (new, &[new])] {
        let sends = client_to_server(&mesh, &behind)
            .await
            .expect("the old root is believed");
        assert!(
            answered(sends, application).await,
            "the old root is believed until the end"
        );
        mesh.authority.change(signing, handed_out);
        renewed(&mesh, &mut live).await;
        let mut fresh = in_a_new_tunnel(&mesh, application).await;
        echoed(&mut fresh, "fresh").await;
        echoed(&mut live, "still here").await;
    }

    let refused = match client_to_server(&mesh, &behind).await {
        Ok(send) => !answered(send, application).await,
        Err(_) => true,
    };
    assert!(refused, "a certificate of the old root is believed no more");
}

async fn answered(
    mut send: h2::client::SendRequest<bytes::Bytes>,
    application: std::net::SocketAddr,
) -> bool {
    match send.send_request(connect(application), false) {
        Ok((response, _stream)) => response.await.is_ok(),
        Err(_) => false,
    }
}
