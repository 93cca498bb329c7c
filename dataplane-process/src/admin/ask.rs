//! The other end: what an `admin` subcommand and the command line ask through a socket.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON, as a rule.
    pub body: Bytes,
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket cannot be reached.
    #[error("{socket}: {source}")]
    Socket {
        /// Which.
        socket: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The request cannot be made.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    /// The exchange broke.
    #[error("admin interface: {0}")]
    Exchange(#[from] hyper::Error),
}

/// Asks the admin interface at a socket, such as `GET`, `/status`, an empty body.
pub async fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> Result<Answer, AskError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AskError::Socket {
            socket: socket.display().to_string(),
            source,
        })?;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "admin")
        .body(Full::new(body.into()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself once the sender is dropped.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, body })
}
