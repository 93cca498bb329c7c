//! One HTTP request over a Unix socket: how the plugin speaks to the agent, and `admin` to its own process.

use std::io;
use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body, as text.
    pub body: String,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end does not speak HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request could not be made.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
}

/// Sends JSON and awaits the answer.
pub async fn post(socket: &Path, path: &str, body: &Value) -> Result<Answer, CallError> {
    send(socket, Method::POST, path, body.to_string()).await
}

/// Sends a request and awaits the answer.
pub async fn send(socket: &Path, method: Method, path: &str, body: String) -> Result<Answer, CallError> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "trefoil")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let driven = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    driven.abort();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
