//! The test server: tells each client who answered and whom it saw. Never answers before it was asked,
//! except on the port where speaking first is the point.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::session::Protocol;
use super::{CERTIFICATE, MARKER, bulk, port};

/// Listens on all ports of the test server, both families, until the process ends.
pub async fn serve(name: String) -> anyhow::Result<()> {
    let name: Arc<str> = name.into();
    let http = listen(port::HTTP).await?;
    let tcp = listen(port::TCP).await?;
    let greeting = listen(port::GREETING).await?;
    let transfer = listen(port::BULK).await?;
    println!("ready");
    let answering = |protocol| {
        let name = Arc::clone(&name);
        move |stream, peer| answer(protocol, stream, peer, Arc::clone(&name))
    };
    tokio::join!(
        accept(http, answering(Protocol::H1)),
        accept(tcp, answering(Protocol::Tcp)),
        accept(greeting, answering(Protocol::Greeting)),
        accept(transfer, |stream, _| bulk::answer(stream)),
    );
    Ok(())
}

/// Serves one connection in a protocol; those over HTTP are told apart by what the client speaks.
pub async fn answer(
    protocol: Protocol,
    stream: TcpStream,
    peer: SocketAddr,
    name: Arc<str>,
) -> anyhow::Result<()> {
    match protocol {
        Protocol::H1 | Protocol::H2 | Protocol::Grpc | Protocol::WebSocket => {
            answer_http(stream, peer, name).await
        }
        Protocol::Tcp => answer_lines(stream, peer, name, false).await,
        Protocol::Greeting => answer_lines(stream, peer, name, true).await,
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .await
        .with_context(|| format!("listening on port {port}"))
}

/// Hands every connection to a task of its own; what ends one concerns no other.
pub async fn accept<Answer, Ended>(listener: TcpListener, answer: Answer)
where
    Answer: Fn(TcpStream, SocketAddr) -> Ended,
    Ended: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(answer(stream, peer));
            }
            // Out of descriptors, or a client gone already: the next one may do.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The line that says who answered whom.
fn identify(name: &str, peer: SocketAddr) -> String {
    format!(
        "{name} {}",
        SocketAddr::new(peer.ip().to_canonical(), peer.port())
    )
}

async fn answer_http(stream: TcpStream, peer: SocketAddr, name: Arc<str>) -> anyhow::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let line = format!("{} {MARKER}\n", identify(&name, peer));
        async move {
            Ok::<_, Infallible>(match request.headers().contains_key(header::SEC_WEBSOCKET_KEY) {
                true => switch(request, line),
                false => respond(request, line).await,
            })
        }
    });
    hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
        .map_err(|error| anyhow::anyhow!(error))
}

/// Where the test client asks for a WebSocket.
pub(super) const SOCKET: &str = "/socket";

/// Becomes a WebSocket that answers every message with the line.
fn switch(mut request: Request<Incoming>, line: String) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let certificate = request.headers().get("x-forwarded-client-cert").cloned();
    let nothing = || StreamBody::new(futures::stream::iter(Vec::new()));
    let Ok(response) = create_response(&request.map(|_| ())) else {
        let mut refusal = Response::new(nothing());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return refusal;
    };
    tokio::spawn(async move {
        let upgraded = TokioIo::new(upgrade.await?);
        let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
        while let Some(message) = socket.next().await {
            if message?.is_text() {
                socket.send(Message::text(line.as_str())).await?;
            }
        }
        anyhow::Ok(())
    });
    let mut response = response.map(|()| nothing());
    if let Some(certificate) = certificate {
        response.headers_mut().insert(CERTIFICATE, certificate);
    }
    response
}

type Body = StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

/// The line as the body; as one length-prefixed message with trailers where the client speaks gRPC. Headers tell the path
/// that was asked for, and who the client was said to be.
async fn respond(request: Request<Incoming>, line: String) -> Response<Body> {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let mut response = Response::builder().header("x-path", request.uri().path());
    if let Some(certificate) = request.headers().get("x-forwarded-client-cert") {
        response = response.header(CERTIFICATE, certificate);
    }
    let _ = request.into_body().collect().await;
    let mut frames = Vec::new();
    if grpc {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        frames.push(Ok(Frame::data(grpc_message(&line))));
        frames.push(Ok(Frame::trailers(trailers)));
        response = response.header(header::CONTENT_TYPE, "application/grpc");
    } else {
        response = response.header(header::CONTENT_LENGTH, line.len());
        frames.push(Ok(Frame::data(Bytes::from(line))));
    }
    let body = StreamBody::new(futures::stream::iter(frames));
    response
        .body(body)
        .unwrap_or_else(|_| Response::new(StreamBody::new(futures::stream::iter(Vec::new()))))
}

/// gRPC's length-prefixed framing, uncompressed.
pub(super) fn grpc_message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut message = vec![0];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(text.as_bytes());
    message.into()
}

async fn answer_lines(
    stream: TcpStream,
    peer: SocketAddr,
    name: Arc<str>,
    greet: bool,
) -> anyhow::Result<()> {
    let who = identify(&name, peer);
    let (read, mut write) = stream.into_split();
    if greet {
        write.write_all(format!("{who} {MARKER}\n").as_bytes()).await?;
    }
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all(format!("{who} {line}\n").as_bytes()).await?;
    }
    Ok(())
}
