//! An HTTP/2 client of tests' own, which may say in a tunnel what planes do not.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Uri};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use trefoil_api::Identity;

use crate::mesh::Mesh;

/// A tunnel of `identity`, from the address `from`, to a plane that must be `expected`.
pub(crate) async fn tunnel_as(
    mesh: &Mesh,
    (identity, from): (&Identity, IpAddr),
    (expected, to): (Identity, SocketAddr),
) -> SendRequest<Bytes> {
    let config = mesh
        .certificates
        .client_config(identity, &[expected])
        .await
        .unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let stream = socket.connect(to).await.unwrap();
    let name = rustls_pki_types::ServerName::IpAddress(to.ip().into());
    let tls = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let (send, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

/// What planes ask for.
pub(crate) fn connect(authority: SocketAddr) -> Request<()> {
    let uri = Uri::builder().authority(authority.to_string()).build().unwrap();
    let request = Request::builder().method(Method::CONNECT).uri(uri);
    request.body(()).unwrap()
}
