//! A discovery stream over HTTP/2 without a gRPC library: those keep the buffer of the largest message for as long as the
//! stream lasts, which is a whole mesh for each client. Here a message is read field by field as it comes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::Connection;
use h2::{RecvStream, SendStream};
use prost::Message;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};

use super::message::{Request, Response};

const URI: &str =
    "https://control-plane/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Whether it is compressed, and how long it is.
const PREFIX: usize = 5;
/// As planes have them.
const WINDOWS: (u32, u32) = (4 << 20, 8 << 20);

/// The way to the control plane.
#[derive(Clone)]
pub struct Way {
    address: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Way {
    /// To an address, whose certificate one of these roots vouches for.
    pub fn new(address: SocketAddr, roots: &str, name: &'static str) -> anyhow::Result<Self> {
        let mut known = rustls::RootCertStore::empty();
        for root in rustls_pki_types::CertificateDer::pem_slice_iter(roots.as_bytes()) {
            known.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(known)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(name)?,
        })
    }

    /// A connection, and a stream on it that is to be used while the connection is driven.
    pub async fn open(
        &self,
        authorization: &MetadataValue<Ascii>,
    ) -> anyhow::Result<(Connection<TlsStream<TcpStream>>, Stream)> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = self.connector.connect(self.name.clone(), tcp).await?;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1);
        let (mut sender, connection) = builder.handshake(tls).await?;
        let request = http::Request::post(URI)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", authorization.as_bytes())
            .body(())?;
        let (response, requests) = sender.send_request(request, false)?;
        let stream = Stream {
            requests,
            answer: Some(response),
            responses: None,
            buffer: BytesMut::new(),
            left: None,
            response: Response::default(),
        };
        Ok((connection, stream))
    }
}

/// See the module.
pub struct Stream {
    requests: SendStream<Bytes>,
    answer: Option<h2::client::ResponseFuture>,
    responses: Option<RecvStream>,
    buffer: BytesMut,
    /// Bytes of the present message that are not read yet.
    left: Option<usize>,
    response: Response,
}

impl Stream {
    /// Sends a request, as fast as it is taken.
    pub async fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut frame = BytesMut::with_capacity(PREFIX + request.encoded_len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(request.encoded_len())?);
        request.encode(&mut frame)?;
        let mut rest = frame.freeze();
        while !rest.is_empty() {
            self.requests.reserve_capacity(rest.len());
            let granted = std::future::poll_fn(|context| self.requests.poll_capacity(context)).await;
            let now = granted.context("the stream ended")??.min(rest.len());
            self.requests.send_data(rest.split_to(now), false)?;
        }
        Ok(())
    }

    /// The next response.
    pub async fn next(&mut self) -> anyhow::Result<Response> {
        if let Some(answer) = self.answer.take() {
            let answer = answer.await?;
            if let Some(status) = answer.headers().get("grpc-status") {
                bail!("refused: {status:?} {:?}", answer.headers().get("grpc-message"));
            }
            ensure!(answer.status() == 200, "{}", answer.status());
            self.responses = Some(answer.into_body());
        }
        loop {
            if self.read()? {
                return Ok(std::mem::take(&mut self.response));
            }
            let responses = self.responses.as_mut().context("no answer")?;
            let data = responses
                .data()
                .await
                .context("the control plane closed the stream")??;
            responses.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Reads what is whole of what came; whether that ends a message.
    fn read(&mut self) -> anyhow::Result<bool> {
        if self.left.is_none() {
            if self.buffer.len() < PREFIX {
                return Ok(false);
            }
            ensure!(self.buffer.get_u8() == 0, "a compressed response");
            self.left = Some(self.buffer.get_u32() as usize);
        }
        let left = self.left.unwrap_or_default();
        let mut part = &self.buffer[..left.min(self.buffer.len())];
        let came = part.len();
        self.response.read(&mut part)?;
        let read = came - part.len();
        self.buffer.advance(read);
        self.left = Some(left - read).filter(|left| *left > 0);
        Ok(self.left.is_none())
    }
}
