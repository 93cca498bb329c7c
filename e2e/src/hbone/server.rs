//! The server: accepts tunnels, says whose they are, and plays the application behind them itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Certificate, tls};
use crate::programs::MARKER;

/// One CONNECT, as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The client's certificate.
    pub certificate: Certificate,
    /// The version of TLS.
    pub tls: String,
    /// The protocol that was agreed on within it.
    pub protocol: Option<String>,
    /// What was to be connected to.
    pub authority: String,
    /// The request's headers.
    pub headers: BTreeMap<String, String>,
}

/// Serves until the process ends; `seen` is told of every CONNECT. The lines are answered as the test
/// server does, as `name`.
pub async fn serve(
    listener: TcpListener,
    credentials: &Path,
    name: &str,
    seen: impl Fn(&Tunnel) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(credentials)?));
    let seen: Arc<dyn Fn(&Tunnel) + Send + Sync> = Arc::new(seen);
    let name: Arc<str> = name.into();
    crate::programs::serve::accept(listener, move |stream, peer| {
        connection(
            acceptor.clone(),
            stream,
            peer,
            Arc::clone(&name),
            Arc::clone(&seen),
        )
    })
    .await;
    Ok(())
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    name: Arc<str>,
    seen: Arc<dyn Fn(&Tunnel) + Send + Sync>,
) -> anyhow::Result<()> {
    let stream = acceptor.accept(stream).await?;
    let session = stream.get_ref().1;
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificate = Certificate::read(certificates.first().context("no client certificate")?)?;
    let tls = session.protocol_version().map(|version| format!("{version:?}"));
    let tls = tls.context("no version of TLS")?;
    let protocol = session.alpn_protocol();
    let protocol = protocol.map(|protocol| String::from_utf8_lossy(protocol).into_owned());
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, response) = request?;
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        seen(&Tunnel {
            certificate: certificate.clone(),
            tls: tls.clone(),
            protocol: protocol.clone(),
            authority: request.uri().to_string(),
            headers: request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        });
        tokio::spawn(answer(request, response, format!("{name} {peer}")));
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut response: SendResponse<Bytes>,
    who: String,
) -> anyhow::Result<()> {
    if request.method() != Method::CONNECT {
        let refusal = Response::builder().status(StatusCode::METHOD_NOT_ALLOWED);
        response.send_response(refusal.body(())?, true)?;
        return Ok(());
    }
    let mut send = response.send_response(Response::new(()), false)?;
    let mut body = request.into_body();
    let mut line = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        line.extend_from_slice(&data);
        if line.ends_with(b"\n") {
            line.clear();
            send.send_data(Bytes::from(format!("{who} {MARKER}\n")), false)?;
        }
    }
    send.send_data(Bytes::new(), true)?;
    Ok(())
}
