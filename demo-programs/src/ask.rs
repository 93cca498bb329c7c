//! Questions to servers: each asked once.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::CONNECTION;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};

/// A connection to an HTTP server.
pub(crate) struct Connection {
    send: SendRequest<Full<Bytes>>,
    /// The last answer said that the connection ends with it.
    pub(crate) over: bool,
}

impl Connection {
    /// A new one.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (send, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { send, over: false })
    }

    /// What the server answers, which must be well.
    pub(crate) async fn get(&mut self) -> anyhow::Result<String> {
        self.send.ready().await?;
        let request = Request::get("/").header("host", "demo").body(Full::default())?;
        let response = self.send.send_request(request).await?;
        let said = response.headers().get(CONNECTION);
        self.over = said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"close"));
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        anyhow::ensure!(status == 200, "{}: {body}", status.as_u16());
        Ok(body)
    }
}

/// One request to HOST:PORT over a connection of its own.
pub(crate) async fn http(target: &str) -> anyhow::Result<String> {
    Connection::open(resolve(target).await?).await?.get().await
}

/// One command to a Redis, as people type them, and its one-line answer.
pub(crate) async fn redis(target: &str, command: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).await?;
    anyhow::ensure!(length > 0, "the connection was closed");
    Ok(String::from_utf8_lossy(&answer[1..length]).trim().to_owned())
}

/// The address of HOST:PORT.
pub(crate) async fn resolve(target: &str) -> anyhow::Result<SocketAddr> {
    lookup_host(target)
        .await?
        .next()
        .with_context(|| format!("{target} has no address"))
}
