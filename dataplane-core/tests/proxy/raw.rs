//! An HTTP/2 client of tests' own, which may say in a tunnel what planes do not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Uri};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use trefoil_api::Identity;
use trefoil_api::names::port;
use trefoil_dataplane_state::certificates::Certificates;

use crate::mesh::Mesh;

/// A tunnel of `identity`, from the address `from`, to a plane that must be `expected`.
pub(crate) async fn tunnel_as(
    mesh: &Mesh,
    client: (&Identity, IpAddr),
    server: (Identity, SocketAddr),
) -> SendRequest<Bytes> {
    tunnel_with(&mesh.certificates, client, server).await.unwrap()
}

/// A tunnel of the client's pod to the server's, with a certificate of these.
pub(crate) async fn client_to_server(
    mesh: &Mesh,
    certificates: &Arc<Certificates>,
) -> Result<SendRequest<Bytes>, h2::Error> {
    let server = (mesh.server.identity(), mesh.server.at(port::HBONE));
    let identity = mesh.client.identity();
    tunnel_with(certificates, (&identity, mesh.client.address), server).await
}

async fn tunnel_with(
    certificates: &Arc<Certificates>,
    (identity, from): (&Identity, IpAddr),
    (expected, to): (Identity, SocketAddr),
) -> Result<SendRequest<Bytes>, h2::Error> {
    let config = certificates.client_config(identity, &[expected]).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let stream = socket.connect(to).await.unwrap();
    let name = rustls_pki_types::ServerName::IpAddress(to.ip().into());
    let tls = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let (send, connection) = h2::client::handshake(tls).await?;
    tokio::spawn(connection);
    send.ready().await
}

/// What planes ask for.
pub(crate) fn connect(authority: SocketAddr) -> Request<()> {
    let uri = Uri::builder().authority(authority.to_string()).build().unwrap();
    let request = Request::builder().method(Method::CONNECT).uri(uri);
    request.body(()).unwrap()
}
