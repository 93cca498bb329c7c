//! The server's end: takes requests until asked to leave, and answers each on its stream.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ::bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use trefoil_dataplane_core::forward::TunnelStream;

use super::WINDOWS;
use super::body::{Received, say_length, send};
use crate::body::Body;
use crate::head::SIZE;
use crate::incoming::Incoming;

/// The largest head that is taken, as the protocol counts: what is between it and [`SIZE`] is refused with more than a
/// status.
const LIST: u32 = 2 * SIZE as u32;
/// Requests of one connection at a time.
const STREAMS: u32 = 200;
/// What keeping small frames may cost beyond their bytes, until they are taken. A connection that holds more is ended by
/// the library: whoever can reach a sidecar can open one.
const SMALL_FRAMES: usize = 8 * 1024 * 1024;
/// Bytes of all interim responses to one request, as the protocol counts (RFC 9113, section 6.5.2): of a client that
/// does not read, they are held.
const INTERIM: usize = 64 * 1024;

/// A client's stream, as it is answered. Clones are the same.
#[derive(Clone)]
pub(crate) struct Stream {
    state: Arc<Mutex<State>>,
}

struct State {
    respond: SendResponse<Bytes>,
    /// The response has begun: nothing may be said before it any more.
    answered: bool,
    interim: usize,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.lock().respond.stream_id();
        f.debug_tuple("Stream").field(&stream).finish()
    }
}

impl Stream {
    fn new(respond: SendResponse<Bytes>) -> Self {
        let state = State {
            respond,
            answered: false,
            interim: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says `interim` before the response. What would be more than a client may be behind is dropped.
    pub(crate) fn interim(&self, interim: Response<()>) {
        let mut state = self.lock();
        let fields = interim.headers().iter();
        let size = fields.fold(64, |size, (name, value)| {
            size + name.as_str().len() + value.len() + 32
        });
        if !state.answered && state.interim + size <= INTERIM {
            state.interim += size;
            // Fails only where the stream has ended.
            let _ = state.respond.send_informational(interim);
        }
    }

    /// Asks for the body.
    pub(super) fn go_on(&self) {
        let mut go_on = Response::new(());
        *go_on.status_mut() = StatusCode::CONTINUE;
        self.interim(go_on);
    }

    /// Resolves once the client wants no answer any more.
    async fn given_up(&self) {
        // How, does not matter.
        let _ = poll_fn(|cx| self.lock().respond.poll_reset(cx)).await;
    }

    fn respond(&self, head: Response<()>, ends: bool) -> Result<h2::SendStream<Bytes>, h2::Error> {
        let mut state = self.lock();
        state.answered = true;
        state.respond.send_response(head, ends)
    }

    fn reset(&self, reason: Reason) {
        self.lock().respond.send_reset(reason);
    }
}

/// A request, as it came: `leaves` resolves where it leaves HTTP, once that was agreed to.
pub(crate) struct Asking {
    pub(crate) request: Request<Incoming>,
    pub(crate) stream: Stream,
    pub(crate) leaves: Option<oneshot::Receiver<TunnelStream>>,
}

/// Serves a connection to its end; `answer` is called for each request. Once `leave` resolves, the client is asked to go
/// elsewhere (GOAWAY) and what is under way runs to its end.
pub(crate) async fn serve<T, A, F>(
    io: T,
    answer: A,
    leave: impl Future<Output = ()> + Send,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Asking) -> F,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(LIST)
        .data_frame_budget(SMALL_FRAMES)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(io)
        .await?;
    // They end with the connection.
    let mut streams = JoinSet::new();
    tokio::pin!(leave);
    let mut leaving = false;
    loop {
        tokio::select! {
            biased;
            () = &mut leave, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            next = connection.accept() => match next {
                Some(next) => {
                    let (request, respond) = next?;
                    take(request, respond, &answer, &mut streams);
                }
                None => break,
            },
            Some(_) = streams.join_next() => {}
        }
    }
    // Nobody hears what they still say, but each is to be reported.
    while streams.join_next().await.is_some() {}
    Ok(())
}

fn take<A, F>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answer: &A,
    streams: &mut JoinSet<()>,
) where
    A: Fn(Asking) -> F,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let connects = head.method == Method::CONNECT;
    if connects && head.headers.contains_key(CONTENT_LENGTH) {
        // It has no body (RFC 9110, section 9.3.6).
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    let stream = Stream::new(respond);
    let (incoming, leaves, left) = if connects {
        let (leaves, left) = oneshot::channel();
        (Incoming::Nothing, Some((body, leaves)), Some(left))
    } else {
        let waits = expects_a_sign(&head.headers).then(|| stream.clone());
        let received = Received::new(body, &head.headers).awaited_by(waits);
        (Incoming::Two(received), None, None)
    };
    let asking = Asking {
        request: Request::from_parts(head, incoming),
        stream: stream.clone(),
        leaves: left,
    };
    streams.spawn(answered(answer(asking), stream, leaves));
}

fn expects_a_sign(headers: &HeaderMap) -> bool {
    let expected = headers.get(EXPECT).map(HeaderValue::as_bytes);
    expected.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

type Leaves = (RecvStream, oneshot::Sender<TunnelStream>);

/// Answers one request, unless its client gives it up before.
async fn answered(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    stream: Stream,
    leaves: Option<Leaves>,
) {
    let response = tokio::select! {
        biased;
        () = stream.given_up() => return,
        response = answer => response,
    };
    let (parts, body) = match response {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    };
    let mut head = Response::from_parts(parts, ());
    let headers = head.headers_mut();
    // Who forwards an answer without one adds it (RFC 9110, section 6.6.1).
    let now = || HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()));
    if !headers.contains_key(DATE)
        && let Ok(now) = now()
    {
        headers.insert(DATE, now);
    }
    match leaves {
        Some((receive, leaves)) if head.status().is_success() => {
            head.headers_mut().remove(CONTENT_LENGTH);
            match stream.respond(head, false) {
                // Who asked for it may be gone: it is reset then.
                Ok(send) => drop(leaves.send(TunnelStream::new(send, receive))),
                Err(error) => unsaid(&stream, &error),
            }
        }
        _ => respond(&stream, head, body).await,
    }
}

async fn respond(stream: &Stream, mut head: Response<()>, body: Body) {
    let ends = body.is_end_stream();
    if !ends {
        say_length(head.headers_mut(), &body);
    }
    match stream.respond(head, ends) {
        Ok(sending) if !ends => send(body, sending).await,
        Ok(_) => {}
        Err(error) => unsaid(stream, &error),
    }
}

/// The response could not be said: as a rule its client has just gone.
fn unsaid(stream: &Stream, error: &h2::Error) {
    tracing::debug!(%error, "a response could not be sent");
    stream.reset(Reason::INTERNAL_ERROR);
}
