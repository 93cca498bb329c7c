//! A side as bytes that are read and written, for what speaks a protocol over it. In a stream of an HBONE tunnel an end is
//! END_STREAM, a reset an error; the other end may send more only as bytes are read. Dropped before it has been ended
//! in order, a side is reset, socket or stream: it never looks as if it had ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tunnel::poll_room;
use super::{Begun, Broken, Counters, Lease, Side, TunnelStream};

#[cfg(test)]
mod tests;

/// An open stream, read and written.
#[derive(Debug)]
pub struct TunnelBytes {
    stream: TunnelStream,
    /// Of the last frame, what was not read yet.
    unread: Bytes,
    /// The writing direction was ended.
    finished: bool,
}

impl TunnelBytes {
    /// Of a stream that nothing was read from.
    #[must_use]
    pub fn new(stream: TunnelStream) -> Self {
        Self {
            stream,
            unread: Bytes::new(),
            finished: false,
        }
    }
}

/// What HTTP/2 over the stream keeps of its error is the kind: so much must be in that.
fn broken(error: h2::Error) -> io::Error {
    let kind = match (error.get_io(), error.reason()) {
        (Some(error), _) => error.kind(),
        (None, Some(Reason::INADEQUATE_SECURITY)) => DENIED,
        (None, Some(Reason::REFUSED_STREAM)) => UNREACHED,
        (None, _) => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, Broken::from(error))
}

/// The kind of error by which the plane at the other end says that policy no longer allows the stream.
pub const DENIED: io::ErrorKind = io::ErrorKind::PermissionDenied;
/// The same, that it had opened the stream and did not reach the application.
pub const UNREACHED: io::ErrorKind = io::ErrorKind::ConnectionRefused;

impl AsyncRead for TunnelBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.unread.is_empty() {
            match ready!(this.stream.receive.poll_data(cx)) {
                Some(frame) => this.unread = frame.map_err(broken)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread[..count]);
        this.unread.advance(count);
        // The other end's to use again. An error here is of a stream that has ended: reading on tells how.
        let _ = this.stream.receive.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelBytes {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    /// What is written together goes together: a head and its small body are one frame.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let send = &mut self.stream.send;
        let room = ready!(poll_room(send, wanted, cx)).map_err(broken)?;
        let mut together = BytesMut::with_capacity(room);
        for piece in pieces {
            let left = room - together.len();
            together.extend_from_slice(&piece[..piece.len().min(left)]);
        }
        send.send_data(together.freeze(), false).map_err(broken)?;
        Poll::Ready(Ok(room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written is the tunnel's, which sends it by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.stream.send.send_data(Bytes::new(), true).map_err(broken)?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Its end is an end again, and no reset.
fn ends_in_order(stream: &TcpStream) {
    // Fails only where there is no connection left.
    let _ = socket2::SockRef::from(stream).set_linger(None);
}

/// A side, read and written, and counted where it is the client's.
#[derive(Debug)]
pub struct SideBytes {
    side: Either,
    counters: Option<Arc<Counters>>,
}

#[derive(Debug)]
enum Either {
    Tcp(TcpStream),
    Tunnel(TunnelBytes),
}

impl From<Side> for SideBytes {
    fn from(side: Side) -> Self {
        let side = match side {
            Side::Tcp(stream) => {
                // Until it is ended in order its end is a reset, also when this process is killed. Fails only where
                // there is no connection left.
                let _ = stream.set_zero_linger();
                Either::Tcp(stream)
            }
            Side::Tunnel(stream) => Either::Tunnel(TunnelBytes::new(stream)),
        };
        Self { side, counters: None }
    }
}

impl SideBytes {
    /// The tunnel that it is a stream of, where this end uses one.
    #[must_use]
    pub fn lease(&self) -> Option<Arc<dyn Lease>> {
        match &self.side {
            Either::Tcp(_) => None,
            Either::Tunnel(bytes) => bytes.stream.lease().cloned(),
        }
    }

    /// The client's side, whose bytes are counted.
    #[must_use]
    pub fn counted(self, counters: Arc<Counters>) -> Self {
        let counters = Some(counters);
        Self { counters, ..self }
    }

    /// The side again, of which `read` was read and not acted upon. Nothing may have been written to it.
    #[must_use]
    pub fn begun(self, read: Bytes) -> Begun {
        match self.side {
            Either::Tcp(stream) => {
                ends_in_order(&stream);
                Begun {
                    side: Side::Tcp(stream),
                    read,
                }
            }
            Either::Tunnel(TunnelBytes { stream, unread, .. }) => {
                // What is released here is taken from what its reader will say to have taken: nothing of it.
                let mut stream = stream;
                let _ = stream.receive.flow_control().release_capacity(unread.len());
                let all = match unread.is_empty() {
                    true => read,
                    false => Bytes::from([read, unread].concat()),
                };
                Begun {
                    side: Side::Tunnel(stream),
                    read: all,
                }
            }
        }
    }
}

impl AsyncRead for SideBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.side {
            Either::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Either::Tunnel(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if let (Poll::Ready(Ok(())), Some(counters)) = (&read, &self.counters) {
            counters.received(buffer.filled().len() - before);
        }
        read
    }
}

impl AsyncWrite for SideBytes {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.side {
            Either::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Either::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.sent(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.side {
            Either::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Either::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.side {
            Either::Tcp(stream) => {
                ends_in_order(stream);
                Pin::new(stream).poll_shutdown(cx)
            }
            Either::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.side {
            Either::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Either::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        };
        self.sent(written)
    }
}

impl SideBytes {
    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(count)), Some(counters)) = (&written, &self.counters) {
            counters.sent(*count);
        }
        written
    }
}
