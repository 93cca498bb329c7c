//! A stream of an HBONE tunnel as the side of a connection. The other end may send more only as what it sent
//! has been written on, so a reader that stalls here stalls it there.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};

use super::{Broken, Reader, Writer};

/// Frames smaller than this are put together before they are written on.
const SMALL_FRAME: usize = 1024;
/// As long as together they are not larger than this.
const COALESCED: usize = 16 * 1024;

/// An open stream, in both directions.
pub struct TunnelStream {
    pub(super) send: SendStream<Bytes>,
    pub(super) receive: RecvStream,
    /// Its place in a tunnel, for as long as the stream lives.
    lease: Option<Arc<dyn Lease>>,
}

/// The use of a tunnel.
pub trait Lease: fmt::Debug + Send + Sync {
    /// The tunnel takes no new streams: its other end has asked to leave, or it is old.
    fn leaving(&self) -> bool;
}

impl TunnelStream {
    /// A stream whose CONNECT was answered.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self {
            send,
            receive,
            lease: None,
        }
    }

    /// Keeps `lease` until the stream is gone.
    #[must_use]
    pub fn holding(mut self, lease: Arc<dyn Lease>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Its tunnel, where it is this end that uses one.
    #[must_use]
    pub fn lease(&self) -> Option<&Arc<dyn Lease>> {
        self.lease.as_ref()
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }

    pub(super) fn halves(&mut self) -> (TunnelReader<'_>, TunnelWriter<'_>) {
        let reader = TunnelReader {
            stream: &mut self.receive,
            small: BytesMut::new(),
            behind: None,
        };
        (
            reader,
            TunnelWriter {
                stream: &mut self.send,
                unwanted: false,
            },
        )
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TunnelStream")
            .field(&self.receive.stream_id())
            .finish()
    }
}

pub(super) struct TunnelReader<'s> {
    stream: &'s mut RecvStream,
    /// Small frames that were put together.
    small: BytesMut,
    /// What came behind them: a large frame, the end, or an error.
    behind: Option<Option<Result<Bytes, h2::Error>>>,
}

pub(super) struct TunnelWriter<'s> {
    stream: &'s mut SendStream<Bytes>,
    /// The other end has said all that it will, and wants no more.
    unwanted: bool,
}

/// Whether it is how an end that has said all refuses what is still sent to it (RFC 9113, section 8.1): no end but
/// that one has broken.
fn has_said_all(reason: Option<Reason>) -> bool {
    reason == Some(Reason::NO_ERROR)
}

/// How a stream broke that takes nothing more.
fn broken_by(reset: Result<Reason, h2::Error>) -> h2::Error {
    reset.map_or_else(|error| error, Into::into)
}

/// Room for some of `wanted` bytes, at least one; an error once the stream takes nothing more.
pub fn poll_room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    // Only for what is here: capacity that is reserved is taken from the tunnel's other streams.
    stream.reserve_capacity(wanted);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(capacity) => capacity?,
            None => return Poll::Ready(Err(broken_by(ready!(stream.poll_reset(cx))))),
        };
    }
    Poll::Ready(Ok(wanted.min(stream.capacity())))
}

impl TunnelReader<'_> {
    /// Puts together the small frames that are here, up to `limit` bytes: one write, and one piece of memory,
    /// for many frames. What is not small stays behind them.
    fn collect(&mut self, limit: usize, cx: &mut Context<'_>) {
        while self.behind.is_none() && self.small.len() < limit {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.len() < SMALL_FRAME => {
                    self.small.extend_from_slice(&frame)
                }
                Poll::Ready(Some(Err(error))) if has_said_all(error.reason()) => self.behind = Some(None),
                Poll::Ready(other) => self.behind = Some(other),
                Poll::Pending => return,
            }
        }
    }
}

impl Reader for TunnelReader<'_> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.collect(COALESCED, cx);
        if !self.small.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.small).freeze())));
        }
        match self.behind.take() {
            Some(Some(frame)) => Poll::Ready(Ok(Some(frame?))),
            Some(None) => {
                // The end stays the end.
                self.behind = Some(None);
                Poll::Ready(Ok(None))
            }
            None => Poll::Pending,
        }
    }

    fn taken(&mut self, count: usize) -> Result<(), Broken> {
        Ok(self.stream.flow_control().release_capacity(count)?)
    }

    /// While nothing is taken, small frames still are put together: HTTP/2 counts their bytes, not what
    /// keeping each costs, and ends tunnels that hold too many. Flow control bounds how many bytes they are.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.collect(usize::MAX, cx);
        match self.behind.take() {
            Some(Some(Err(error))) => Poll::Ready(error.into()),
            other => {
                self.behind = other;
                Poll::Pending
            }
        }
    }
}

impl Writer for TunnelWriter<'_> {
    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        while !chunk.is_empty() {
            let room = ready!(poll_room(self.stream, chunk.len(), cx))?;
            self.stream.send_data(chunk.split_to(room), false)?;
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) -> Result<(), Broken> {
        if self.unwanted {
            return Ok(());
        }
        Ok(self.stream.send_data(Bytes::new(), true)?)
    }

    /// That the other end wants no more breaks nothing until more is sent.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if self.unwanted {
            return Poll::Pending;
        }
        match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) if has_said_all(Some(reason)) => {
                self.unwanted = true;
                Poll::Pending
            }
            reset => Poll::Ready(Broken::Tunnel(broken_by(reset))),
        }
    }
}
