//! The client's end: a connection that many requests share, until it is told to leave.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use ::bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::WINDOWS;
use super::body::{Received, say_length, send};
use super::turn::InTurn;
use crate::body::Body;

/// What keeping small frames may cost beyond their bytes, until they are taken: as many as a connection's window has
/// room for. A connection that holds more is ended by the library.
const SMALL_FRAMES: usize = 64 * 1024 * 1024;
/// The largest head of a response.
const HEAD: u32 = 64 * 1024;
/// Requests at a time before the other end has said how many it takes: as many as it should (RFC 9113, section 6.5.2).
const AT_FIRST: usize = 100;

/// The use of a connection. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    send: SendRequest<Bytes>,
    over: Arc<AtomicBool>,
}

/// A request that could not be sent, whole where nothing of it was.
pub(crate) struct Unsent {
    pub(crate) error: h2::Error,
    pub(crate) request: Option<Request<Body>>,
}

/// Opens HTTP/2 over `io`.
pub(crate) async fn connect<T>(io: T) -> Result<Sender, h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_header_list_size(HEAD)
        .initial_max_send_streams(AT_FIRST)
        .data_frame_budget(SMALL_FRAMES)
        .enable_push(false)
        .handshake(io)
        .await?;
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    tokio::spawn(async move {
        // Its failure is told to whoever uses it.
        let _ = InTurn::new(connection).await;
        ended.store(true, Ordering::Relaxed);
    });
    Ok(Sender { send, over })
}

impl Sender {
    /// Whether nothing can be sent any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether the other end takes one more request beside those that use this now: the rest would wait, unseen, for one
    /// of them to end (RFC 9113, section 5.1.2).
    pub(crate) fn has_room(&self) -> bool {
        // Beside them, who keeps it and the connection itself.
        let users = Arc::strong_count(&self.over).saturating_sub(2);
        users < self.send.current_max_send_streams()
    }

    /// Sends a request; what comes before its response is told to `interim`. Dropped before the response is there, it
    /// resets the stream.
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
        mut interim: impl FnMut(Response<()>),
    ) -> Result<Response<Received>, Unsent> {
        if let Err(error) = poll_fn(|cx| self.send.poll_ready(cx)).await {
            // It may linger for those that it still serves.
            self.over.store(true, Ordering::Relaxed);
            let request = Some(request);
            return Err(Unsent { error, request });
        }
        let (parts, body) = request.into_parts();
        let mut head = Request::from_parts(parts, ());
        let ends = body.is_end_stream();
        if !ends {
            say_length(head.headers_mut(), &body);
        }
        let sent = self.send.send_request(head, ends);
        let (mut response, stream) = sent.map_err(broken)?;
        let mut sending = (!ends).then(|| Box::pin(send(body, stream)));
        let answered = poll_fn(|cx| {
            // Both ways at a time: an answer need not wait for the end of what it answers.
            if let Some(body) = &mut sending
                && body.as_mut().poll(cx).is_ready()
            {
                sending = None;
            }
            while let Poll::Ready(Some(Ok(said))) = response.poll_informational(cx) {
                interim(said);
            }
            pin!(&mut response).poll(cx)
        });
        let response = answered.await.map_err(broken)?;
        if let Some(rest) = sending {
            // It ends with its reader, or with its source.
            tokio::spawn(rest);
        }
        let (parts, body) = response.into_parts();
        let body = Received::new(body, &parts.headers);
        Ok(Response::from_parts(parts, body))
    }
}

/// What was sent before it broke is not known.
fn broken(error: h2::Error) -> Unsent {
    let request = None;
    Unsent { error, request }
}
