//! The client's end of one tunnel: set up, driven, and streams opened in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use h2::client::{Connection, SendRequest};
use h2::{PingPong, Reason};
use http::{Request, StatusCode};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::keepalive::until_silent;
use super::{FRAME, SERVER_HEADERS, SERVER_STREAMS, SMALL_FRAMES, TLS_BUFFER, Window};
use crate::forward::TunnelStream;
use crate::sockets::ConnectError;
use trefoil_dataplane_state::certificates::CertificateError;

#[cfg(test)]
mod tests;

/// How long the other end's plane may be away. Its listener outlives it: the kernel takes the connection and
/// what is said first, and the plane's next process answers, after the back-off of whoever starts it.
const AWAY: Duration = Duration::from_secs(60);
/// How long the other end's kernel may leave that unacknowledged: then nobody is there who could come back.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
/// How long the other end may take to answer: it connects to its application first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why no stream could be opened. Shared by all that waited for the same tunnel.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// No tunnel: the other end's plane could not be reached.
    #[error("tunnel: {0}")]
    Connect(Arc<ConnectError>),
    /// No tunnel: this end has no certificate.
    #[error("tunnel: {0}")]
    Certificate(#[from] CertificateError),
    /// No tunnel: TLS failed, be it at the identity of the other end.
    #[error("tunnel: TLS with the server's plane: {0}")]
    Tls(Arc<std::io::Error>),
    /// No tunnel, or it broke before the answer.
    #[error("tunnel: HTTP/2 with the server's plane: {0}")]
    Http2(Arc<h2::Error>),
    /// No answer in time.
    #[error("tunnel: the server's plane did not answer {0}")]
    TimedOut(&'static str),
    /// The request could not be written down.
    #[error("tunnel: the request is not valid: {0}")]
    Request(Arc<http::Error>),
    /// The server's plane answered no.
    #[error("the server's plane answered {0}")]
    Refused(StatusCode),
}

/// What may help where no stream could be opened.
pub(super) enum Remedy {
    /// Nothing that can be done here.
    None,
    /// A new tunnel: this one died before any byte of the connection was sent.
    Retry,
    /// A new tunnel: in this one the request was not acted upon.
    Leave,
}

impl OpenError {
    /// It was for the other end's plane to be there, to be whom it should be and to answer.
    pub(crate) fn is_of_far_end(&self) -> bool {
        match self {
            Self::Connect(error) => !matches!(**error, ConnectError::Socket(_)),
            Self::Tls(_) | Self::Http2(_) | Self::TimedOut(_) => true,
            Self::Certificate(_) | Self::Request(_) | Self::Refused(_) => false,
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Http2(error) if error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM) => {
                Remedy::Leave
            }
            Self::Http2(error) if error.is_io() => Remedy::Retry,
            // A certificate that was refused once is refused again.
            Self::Tls(error) if !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Remedy::Retry
            }
            _ => Remedy::None,
        }
    }
}

impl From<ConnectError> for OpenError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl From<h2::Error> for OpenError {
    fn from(error: h2::Error) -> Self {
        Self::Http2(Arc::new(error))
    }
}

pub(super) type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// Sets up TLS and HTTP/2. The connection must be driven.
pub(super) async fn handshake(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    window: &Window,
) -> Result<(SendRequest<Bytes>, Connection<Tls>), OpenError> {
    // The name is of no meaning: the other end is recognised by its identity, and no name is sent.
    let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    unacknowledged_for(&stream, Some(UNACKNOWLEDGED))?;
    let tls = TlsConnector::from(config).connect_with(name, stream, |session| {
        session.set_buffer_limit(Some(TLS_BUFFER));
    });
    let set_up = async {
        let tls = tls.await.map_err(|error| OpenError::Tls(Arc::new(error)))?;
        // From here on it would also end a tunnel whose other end takes its time to read.
        unacknowledged_for(tls.get_ref().0, None)?;
        Ok(builder(window).handshake(tls).await?)
    };
    timeout(AWAY, set_up)
        .await
        .unwrap_or(Err(OpenError::TimedOut("the handshake")))
}

/// The kernel ends the connection once something has stayed unacknowledged for this long.
fn unacknowledged_for(stream: &TcpStream, limit: Option<Duration>) -> Result<(), OpenError> {
    let set = SockRef::from(stream).set_tcp_user_timeout(limit);
    Ok(set.map_err(ConnectError::Socket)?)
}

fn builder(window: &Window) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(window.stream())
        .initial_connection_window_size(window.connection())
        .max_frame_size(FRAME)
        .max_header_list_size(SERVER_HEADERS / 4)
        .max_send_buffer_size(window.queue())
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(SERVER_STREAMS as usize)
        .enable_push(false);
    builder
}

/// Drives a tunnel to its end: until it has no more users, breaks, or falls silent.
pub(super) async fn drive<T>(mut connection: Connection<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let ping_pong: Option<PingPong> = connection.ping_pong();
    tokio::select! {
        // Those whose streams it breaks are told by their streams.
        _ = connection => {}
        () = until_silent(ping_pong) => {}
    }
}

/// Opens a stream: ready once the other end is connected to its application.
pub(super) async fn open(send: &SendRequest<Bytes>, request: Request<()>) -> Result<TunnelStream, OpenError> {
    let mut send = send.clone();
    let asked = async {
        poll_fn(|cx| send.poll_ready(cx)).await?;
        let (response, stream) = send.send_request(request, false)?;
        let response = response.await?;
        match response.status() {
            StatusCode::OK => Ok(TunnelStream::new(stream, response.into_body())),
            status => Err(OpenError::Refused(status)),
        }
    };
    timeout(ANSWER_TIMEOUT, asked)
        .await
        .unwrap_or(Err(OpenError::TimedOut("the request")))
}
