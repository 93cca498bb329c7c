//! The server's end of a tunnel: takes requests until asked to leave, then lets the streams finish.

use std::future::Future;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::keepalive::until_silent;
use super::{
    Asked, BadRequest, FRAME, HANDSHAKE_TIMEOUT, SERVER_HEADERS, SERVER_STREAMS, SMALL_FRAMES, Window,
};
use crate::forward::TunnelStream;

/// A request for a stream, not answered yet.
#[derive(Debug)]
pub struct Incoming {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Incoming {
    /// What is asked for, if that can be understood.
    pub fn asked(&self) -> Result<Asked, BadRequest> {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = self.request.method().clone();
        parts.uri = self.request.uri().clone();
        parts.headers = self.request.headers().clone();
        Asked::from_parts(&parts)
    }

    /// Opens the stream: 200.
    pub fn accept(mut self) -> Result<TunnelStream, h2::Error> {
        let send = self.respond.send_response(Response::new(()), false)?;
        Ok(TunnelStream::new(send, self.request.into_body()))
    }

    /// Says that the request was not acted upon: it may be made again elsewhere.
    fn turn_away(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Answers with a status and nothing else.
    pub fn refuse(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // Fails only where the client is gone already. What the client still sends is then not wanted, which
        // the library tells it behind the answer (RFC 9113, section 8.1).
        let _ = self.respond.send_response(response, true);
    }
}

/// Serves a tunnel until it ends. `take` is called for each request and must not block. Once `leave`
/// resolves, the client is asked to go elsewhere (GOAWAY) and the open streams run to their end. Once `closed`
/// does, that is no longer asked but so: requests of those who did not listen are not taken.
pub async fn serve<T>(
    transport: T,
    window: &Window,
    mut take: impl FnMut(Incoming),
    leave: impl Future<Output = ()>,
    closed: impl Future<Output = ()>,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = h2::server::Builder::new()
        .initial_window_size(window.stream())
        .initial_connection_window_size(window.connection())
        .max_frame_size(FRAME)
        .max_header_list_size(SERVER_HEADERS)
        .max_concurrent_streams(SERVER_STREAMS)
        .max_send_buffer_size(window.queue())
        // As many streams as there may be may be reset at once: by applications, which is no attack.
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(SERVER_STREAMS as usize)
        .max_pending_accept_reset_streams(SERVER_STREAMS as usize)
        .handshake::<_, Bytes>(transport);
    let Ok(connection) = timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        return Err(Reason::SETTINGS_TIMEOUT.into());
    };
    let mut connection = connection?;
    let silent = until_silent(connection.ping_pong());
    tokio::pin!(silent, leave, closed);
    let (mut leaving, mut over) = (false, false);
    loop {
        tokio::select! {
            biased;
            // Before requests: a client that always has one more is turned away too.
            () = &mut closed, if !over => {
                over = true;
                connection.graceful_shutdown();
            }
            next = connection.accept() => match next {
                None => return Ok(()),
                Some(next) => {
                    let (request, respond) = next?;
                    let incoming = Incoming { request, respond };
                    if over {
                        incoming.turn_away();
                    } else {
                        take(incoming);
                    }
                }
            },
            () = &mut silent => return Ok(()),
            () = &mut leave, if !leaving && !over => {
                leaving = true;
                connection.graceful_shutdown();
            }
        }
    }
}
