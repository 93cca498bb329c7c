//! What comes over either version of HTTP: bodies, and how they and their connections break.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::http2::Received;

/// A body, of a request or of a response.
#[derive(Debug)]
pub(crate) enum Incoming {
    One(hyper::body::Incoming),
    Two(Received),
    /// What leaves HTTP has none.
    Nothing,
}

/// How a body, or its connection, broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    One(#[from] hyper::Error),
    #[error("http2 error")]
    Two(#[from] h2::Error),
}

impl Broken {
    /// Whether the other end says that it has not acted upon the request (RFC 9113, section 8.7).
    pub(crate) fn not_acted_upon(&self) -> bool {
        let Self::Two(error) = self else {
            return false;
        };
        error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
    }

    /// Whether the other end has ended the connection in order, without an answer to the request.
    pub(crate) fn ended_in_order(&self) -> bool {
        match self {
            Self::One(error) => error.is_incomplete_message(),
            Self::Two(error) => error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR),
        }
    }

    /// The kind of the error of the connection's bytes, if that is what it is.
    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Two(error) => error.get_io().map(io::Error::kind),
            Self::One(error) => {
                let mut source = std::error::Error::source(error);
                while let Some(error) = source {
                    if let Some(error) = error.downcast_ref::<io::Error>() {
                        return Some(error.kind());
                    }
                    source = error.source();
                }
                None
            }
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::One(body) => Pin::new(body).poll_frame(cx).map_err(Broken::One),
            Self::Two(body) => Pin::new(body).poll_frame(cx).map_err(Broken::Two),
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::One(body) => body.is_end_stream(),
            Self::Two(body) => body.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::One(body) => body.size_hint(),
            Self::Two(body) => body.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}
