//! The client: one tunnel, one CONNECT, one line through it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Uri};
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{tls, uri_names};
use crate::programs::MARKER;

/// What is asked of the other end.
#[derive(Clone, Debug, clap::Args)]
pub struct Ask {
    /// The tunnel's other end.
    #[arg(long)]
    pub to: SocketAddr,
    /// What it is asked to connect to.
    #[arg(long)]
    pub authority: String,
    /// Folder with key.pem, chain.pem and root.pem.
    #[arg(long)]
    pub credentials: PathBuf,
    /// Further headers, `NAME=VALUE`; repeatable.
    #[arg(long = "header")]
    pub headers: Vec<String>,
    /// How long the whole may take, in seconds.
    #[arg(long, default_value_t = 5)]
    pub limit: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// URI names in the other end's certificate.
    pub peer: Vec<String>,
    /// Its answer to CONNECT.
    pub status: Option<u16>,
    /// Headers of the answer, in the order they came.
    pub headers: Vec<(String, String)>,
    /// What the application answered through the tunnel.
    pub line: Option<String>,
    /// Why it went no further.
    pub error: Option<String>,
}

/// Opens the tunnel and goes as far as it is let.
pub async fn ask(ask: &Ask) -> Seen {
    let mut seen = Seen::default();
    let limit = Duration::from_secs(ask.limit);
    match tokio::time::timeout(limit, proceed(ask, &mut seen)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => seen.error = Some(format!("{error:#}")),
        Err(_) => seen.error = Some(format!("nothing came within {} s", ask.limit)),
    }
    seen
}

async fn proceed(ask: &Ask, seen: &mut Seen) -> anyhow::Result<()> {
    let config = Arc::new(tls::client(&ask.credentials)?);
    let stream = TcpStream::connect(ask.to).await.context("connecting")?;
    let name = ServerName::IpAddress(ask.to.ip().into());
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .context("TLS handshake")?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    seen.peer = uri_names(certificates.first().context("a peer without a certificate")?)?;
    let (sender, connection) = h2::client::handshake(stream).await.context("HTTP/2 handshake")?;
    let driver = tokio::spawn(connection);
    let result = tunnel(ask, seen, sender).await;
    if let Err(error) = &result
        && driver.is_finished()
        && let Ok(Err(end)) = driver.await
    {
        bail!("{error:#}; the connection: {end}");
    }
    result
}

async fn tunnel(ask: &Ask, seen: &mut Seen, sender: SendRequest<Bytes>) -> anyhow::Result<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(Uri::builder().authority(ask.authority.as_str()).build()?);
    for header in &ask.headers {
        let (name, value) = header.split_once('=').context("a header is NAME=VALUE")?;
        request = request.header(name, value);
    }
    let mut sender = sender.ready().await?;
    let (response, mut send) = sender.send_request(request.body(())?, false)?;
    let response = response.await.context("CONNECT")?;
    seen.status = Some(response.status().as_u16());
    seen.headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    if !response.status().is_success() {
        return Ok(());
    }
    send.send_data(Bytes::from(format!("{MARKER}\n")), false)?;
    let mut body = response.into_body();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let Some(data) = body.data().await else {
            bail!("the tunnel ended before the application answered");
        };
        let data = data.context("reading from the tunnel")?;
        body.flow_control().release_capacity(data.len())?;
        line.extend_from_slice(&data);
    }
    seen.line = Some(String::from_utf8(line)?.trim_end().to_owned());
    Ok(())
}
