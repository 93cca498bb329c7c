//! Bodies as they stream. Nothing is held but what may have to be sent again, up to [`REPLAYED`], and what a mirror
//! has not taken yet, up to [`MIRRORED`] frames.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use ::bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use tokio::sync::mpsc;

use crate::answer::Refusal;
use crate::grpc::Messages;
use crate::head::strip_ours;
use crate::incoming::{Broken, Incoming};
use crate::under_way::Passage;

/// What is kept of a request so that it can be sent again.
const REPLAYED: usize = 64 * 1024;
/// Frames that a mirror may be behind.
const MIRRORED: usize = 16;

/// Any error of a body.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// How a body is broken off that one end would still read.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
struct Cut {
    refusal: Refusal,
    /// As HTTP/2 says it.
    #[source]
    reset: h2::Error,
}

/// The end of a body that is not its end.
pub(crate) fn cut(refusal: Refusal) -> BodyError {
    let reset = match refusal {
        Refusal::Broken(_) => h2::Reason::INTERNAL_ERROR,
        _ => h2::Reason::CANCEL,
    };
    let reset = reset.into();
    Cut { refusal, reset }.into()
}

/// Any body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The body of a request, which may be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    state: Arc<Mutex<State>>,
    /// Of the whole body.
    hint: SizeHint,
}

#[derive(Debug)]
struct State {
    body: Incoming,
    kept: Vec<Piece>,
    kept_bytes: usize,
    /// What was read is kept, so far.
    complete: bool,
    touched: bool,
    ended: bool,
    received: u64,
    /// Of a request of gRPC.
    messages: Option<Messages>,
    mirrors: Vec<mpsc::Sender<Piece>>,
}

#[derive(Clone, Debug)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl Piece {
    fn frame(self) -> Option<Frame<Bytes>> {
        match self {
            Self::Data(data) => Some(Frame::data(data)),
            Self::Trailers(trailers) => Some(Frame::trailers(trailers)),
            Self::End => None,
        }
    }
}

impl Source {
    /// Of `body`, kept for other attempts where `keep`, and of messages where it is `grpc`.
    pub(crate) fn new(body: Incoming, keep: bool, grpc: bool) -> Self {
        let hint = body.size_hint();
        let state = State {
            ended: body.is_end_stream(),
            body,
            kept: Vec::new(),
            kept_bytes: 0,
            complete: keep,
            touched: false,
            received: 0,
            messages: grpc.then(Messages::default),
            mirrors: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            hint,
        }
    }

    /// The body, from its beginning, for as long as `passage` is allowed. Only the last attempt that was begun may be
    /// read.
    pub(crate) fn attempt(&self, passage: &Arc<Passage>) -> Body {
        if self.lock().ended && !self.lock().touched {
            return Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        let attempt = Attempt {
            source: self.clone(),
            passage: passage.clone(),
            next: 0,
            delivered: 0,
        };
        attempt.boxed_unsync()
    }

    /// A copy, to be made before the first attempt. It breaks off where its reader is too slow.
    pub(crate) fn mirror(&self) -> Body {
        let mut state = self.lock();
        if state.ended {
            return Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        let (sender, pieces) = mpsc::channel(MIRRORED);
        state.mirrors.push(sender);
        Copied { pieces }.boxed_unsync()
    }

    /// Whether another attempt would send the same.
    pub(crate) fn replayable(&self) -> bool {
        let state = self.lock();
        !state.touched || state.complete
    }

    /// Bytes that came.
    pub(crate) fn received(&self) -> u64 {
        self.lock().received
    }

    /// Messages of gRPC that came whole.
    pub(crate) fn received_messages(&self) -> u64 {
        self.lock().messages.as_ref().map_or(0, Messages::passed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Broken>>> {
        self.touched = true;
        let piece = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(frame) => match frame.into_trailers() {
                    Ok(mut trailers) => {
                        // Some applications put them among the fields of the head.
                        strip_ours(&mut trailers);
                        trailers.remove(http::header::FORWARDED);
                        Piece::Trailers(trailers)
                    }
                    Err(_) => return Poll::Ready(None),
                },
            },
            Some(Err(error)) => {
                self.complete = false;
                self.mirrors.clear();
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.ended = true;
                self.copy(&Piece::End);
                return Poll::Ready(None);
            }
        };
        if let Piece::Data(data) = &piece {
            self.received += data.len() as u64;
            self.kept_bytes += data.len();
            if let Some(messages) = &mut self.messages {
                messages.pass(data);
            }
        }
        self.copy(&piece);
        // Some readers stop at the last byte.
        if self.body.is_end_stream() && !self.ended {
            self.ended = true;
            self.copy(&Piece::End);
        }
        Poll::Ready(Some(Ok(piece)))
    }

    /// For those who may want it later, or beside.
    fn copy(&mut self, piece: &Piece) {
        if self.kept_bytes > REPLAYED {
            self.complete = false;
            self.kept = Vec::new();
        }
        if self.complete && !matches!(piece, Piece::End) {
            self.kept.push(piece.clone());
        }
        self.mirrors
            .retain(|mirror| mirror.try_send(piece.clone()).is_ok());
    }
}

/// The body as one attempt sends it.
struct Attempt {
    source: Source,
    passage: Arc<Passage>,
    /// Of the pieces that are kept, the next.
    next: usize,
    delivered: u64,
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(refusal) = this.passage.poll_request(cx) {
            return Poll::Ready(Some(Err(cut(refusal))));
        }
        let mut state = this.source.state.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = match state.kept.get(this.next) {
            Some(piece) => piece.clone(),
            None if state.ended => return Poll::Ready(None),
            None => match ready!(state.poll(cx)) {
                Some(piece) => piece?,
                None => return Poll::Ready(None),
            },
        };
        this.next += 1;
        if let Piece::Data(data) = &piece {
            this.delivered += data.len() as u64;
        }
        Poll::Ready(piece.frame().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.source.lock();
        state.ended && self.next >= state.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        match self.source.hint.exact() {
            Some(whole) => SizeHint::with_exact(whole.saturating_sub(self.delivered)),
            None => SizeHint::default(),
        }
    }
}

/// The body as a mirror gets it.
struct Copied {
    pieces: mpsc::Receiver<Piece>,
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => Poll::Ready(piece.frame().map(Ok)),
            None => Poll::Ready(Some(Err(
                "the request broke off, or was faster than its mirror".into()
            ))),
        }
    }
}
