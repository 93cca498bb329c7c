//! One connection of a test client, and one request on it. Never retries, never reconnects.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::serve::{SOCKET, grpc_message};
use super::{CERTIFICATE, MARKER};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 with prior knowledge.
    H2,
    /// gRPC framing over HTTP/2.
    Grpc,
    /// WebSocket over HTTP/1.1: a message, answered by one.
    #[value(name = "websocket")]
    WebSocket,
    /// A line, answered by a line.
    Tcp,
    /// The server speaks first.
    Greeting,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
            Self::Greeting => "greeting",
        })
    }
}

/// What the server said of itself and of the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the server.
    pub server: String,
    /// Address that the server saw.
    pub seen: SocketAddr,
    /// What the server was told of the client's certificate, over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The response arrived: not its first byte alone, since one that breaks off serves nobody.
    Served(Answer),
    /// The connection was refused.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection ended before the response had.
    Closed,
    /// Nothing came in time.
    Late,
    /// Anything else.
    Failed(String),
}

impl Outcome {
    /// Whether the server answered.
    #[must_use]
    pub fn served(&self) -> bool {
        matches!(self, Self::Served(_))
    }

    /// What went wrong, by the kernel's word where there is one.
    fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(error) = cause.downcast_ref::<std::io::Error>() {
                match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => return Self::Refused,
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => {
                        return Self::Reset;
                    }
                    std::io::ErrorKind::UnexpectedEof => return Self::Closed,
                    _ => {}
                }
            }
            if let Some(error) = cause.downcast_ref::<hyper::Error>()
                && (error.is_incomplete_message() || error.is_closed() || error.is_canceled())
            {
                return Self::Closed;
            }
        }
        Self::Failed(format!("{error:#}"))
    }
}

/// An open connection.
pub enum Session {
    /// HTTP/1.1; whether the server has said that the connection ends with its last answer.
    Http1(http1::SendRequest<Full<Bytes>>, String, bool),
    /// HTTP/2; whether its requests are gRPC's.
    Http2(http2::SendRequest<Full<Bytes>>, String, bool),
    /// Messages; who the server said that the client is.
    WebSocket(Box<WebSocketStream<TcpStream>>, Option<String>),
    /// Lines; the greeting if one came unasked.
    Lines(BufReader<TcpStream>, Option<Answer>),
}

impl Session {
    /// Connects.
    pub async fn open(protocol: Protocol, target: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let host = target.to_string();
        Ok(match protocol {
            Protocol::H1 => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Self::Http1(sender, host, false)
            }
            Protocol::H2 | Protocol::Grpc => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Self::Http2(sender, host, protocol == Protocol::Grpc)
            }
            Protocol::WebSocket => {
                let opened = client_async(format!("ws://{host}{SOCKET}"), stream).await;
                let (socket, response) = opened.map_err(unwrapped)?;
                Self::WebSocket(Box::new(socket), certificate(response.headers()))
            }
            Protocol::Tcp => Self::Lines(BufReader::new(stream), None),
            Protocol::Greeting => {
                let mut stream = BufReader::new(stream);
                let greeting = read_line(&mut stream).await?;
                Self::Lines(stream, Some(parse(&greeting)?))
            }
        })
    }

    /// Whether the server has taken leave, with its last answer: whoever stays opens another connection.
    #[must_use]
    pub fn left(&self) -> bool {
        matches!(self, Self::Http1(_, _, true))
    }

    /// One request; returns when the response has been read.
    pub async fn exchange(&mut self) -> anyhow::Result<Answer> {
        match self {
            Self::Http1(sender, host, ends) => {
                let request = Request::post("/")
                    .header(header::HOST, host.as_str())
                    .body(Full::from(MARKER))?;
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let said = response.headers().get(header::CONNECTION);
                *ends = said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"close"));
                read_body(response, false).await
            }
            Self::Http2(sender, host, grpc) => {
                let mut request = Request::post(format!("http://{host}/trefoil.test.Echo/Call"));
                let mut body = Bytes::from_static(MARKER.as_bytes());
                if *grpc {
                    request = request
                        .header(header::CONTENT_TYPE, "application/grpc")
                        .header(header::TE, "trailers");
                    body = grpc_message(MARKER);
                }
                sender.ready().await?;
                read_body(sender.send_request(request.body(Full::new(body))?).await?, *grpc).await
            }
            Self::WebSocket(socket, certificate) => {
                socket.send(Message::text(MARKER)).await.map_err(unwrapped)?;
                let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                let message = socket.next().await.ok_or_else(ended)?.map_err(unwrapped)?;
                Ok(Answer {
                    certificate: certificate.clone(),
                    ..parse(message.to_text()?)?
                })
            }
            Self::Lines(stream, greeting) => {
                if let Some(answer) = greeting.take() {
                    return Ok(answer);
                }
                stream
                    .get_mut()
                    .write_all(format!("{MARKER}\n").as_bytes())
                    .await?;
                parse(&read_line(stream).await?)
            }
        }
    }
}

/// One attempt on a connection of its own.
pub async fn attempt(protocol: Protocol, target: SocketAddr, limit: Duration) -> Outcome {
    attempt_and_keep(protocol, target, limit).await.0
}

/// The same; the connection stays open for as long as it is kept.
pub async fn attempt_and_keep(
    protocol: Protocol,
    target: SocketAddr,
    limit: Duration,
) -> (Outcome, Option<Session>) {
    let whole = async {
        let mut session = Session::open(protocol, target).await?;
        let answer = session.exchange().await?;
        anyhow::Ok((answer, session))
    };
    match tokio::time::timeout(limit, whole).await {
        Ok(Ok((answer, session))) => (Outcome::Served(answer), Some(session)),
        Ok(Err(error)) => (classify(Ok(Err(error))), None),
        Err(elapsed) => (classify(Err(elapsed)), None),
    }
}

/// The outcome of something that was given a time limit.
pub fn classify(ended: Result<anyhow::Result<Answer>, tokio::time::error::Elapsed>) -> Outcome {
    match ended {
        Err(_) => Outcome::Late,
        Ok(Ok(answer)) => Outcome::Served(answer),
        Ok(Err(error)) => Outcome::of(&error),
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(line)
}

fn certificate(headers: &http::HeaderMap) -> Option<String> {
    Some(headers.get(CERTIFICATE)?.to_str().ok()?.to_owned())
}

/// The kernel's word, where that is all that there is.
fn unwrapped(error: tungstenite::Error) -> anyhow::Error {
    match error {
        tungstenite::Error::Io(error) => error.into(),
        tungstenite::Error::Protocol(
            ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
        ) => std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
        other => other.into(),
    }
}

async fn read_body(response: http::Response<hyper::body::Incoming>, grpc: bool) -> anyhow::Result<Answer> {
    let certificate = certificate(response.headers());
    if grpc
        && let Some(status) = response
            .headers()
            .get("grpc-status")
            .filter(|status| *status != "0")
    {
        // Refused before there was a message: it is said in the head.
        let message = response.headers().get("grpc-message");
        let said = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        bail!(
            "grpc-status {}: {}",
            said(status),
            message.map(said).unwrap_or_default()
        );
    }
    if !response.status().is_success() {
        bail!("status {}", response.status());
    }
    let body = response.into_body().collect().await?.to_bytes();
    let text = body
        .get(if grpc { 5.. } else { 0.. })
        .context("a gRPC message without its prefix")?;
    let answer = parse(std::str::from_utf8(text)?)?;
    Ok(Answer {
        certificate,
        ..answer
    })
}

fn parse(line: &str) -> anyhow::Result<Answer> {
    let mut words = line.split_whitespace();
    let server = words.next().context("an empty answer")?.to_owned();
    let seen = words.next().context("an answer without an address")?.parse()?;
    if words.next() != Some(MARKER) {
        bail!("an answer without the marker: {line:?}");
    }
    Ok(Answer {
        server,
        seen,
        certificate: None,
    })
}

#[cfg(test)]
mod tests;
