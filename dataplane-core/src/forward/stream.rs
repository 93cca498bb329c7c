//! A stream of an HBONE tunnel as bytes that are read and written, for what speaks a protocol over it. An end is
//! END_STREAM, a reset an error; the other end may send more only as bytes are read. Dropped before both
//! directions have ended, it resets the stream: it never looks as if it had ended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Broken, TunnelStream};

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

fn broken(error: h2::Error) -> io::Error {
    let kind = match error.get_io() {
        Some(error) => error.kind(),
        None => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, Broken::from(error))
}

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
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let send = &mut self.stream.send;
        // Only for what is here: capacity that is reserved is taken from the tunnel's other streams.
        send.reserve_capacity(bytes.len());
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(capacity) => capacity.map_err(broken)?,
                None => {
                    let reset = ready!(send.poll_reset(cx));
                    return Poll::Ready(Err(broken(reset.map_or_else(|error| error, Into::into))));
                }
            };
        }
        let count = bytes.len().min(send.capacity());
        send.send_data(Bytes::copy_from_slice(&bytes[..count]), false)
            .map_err(broken)?;
        Poll::Ready(Ok(count))
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
