//! A connection's bytes, as the parser gets and writes them: what can be read in two ways does not reach it, and interim
//! responses, which it cannot write, go between what it writes.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Ambiguous, Scanner};

#[cfg(test)]
mod tests;

/// What the client of a first request gets; later ones are cut, since an answer may be under way.
pub(super) const ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
content-length: 52\r\n\r\nthe request can be read in two ways: it is refused.\n";
/// Bytes of interim responses that a client may be behind.
const EARLY: usize = 64 * 1024;

/// What is known of a connection's bytes, beside them.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    switched: AtomicBool,
    refused: OnceLock<Ambiguous>,
    /// Something is being written that may be within a message.
    writing: AtomicBool,
    /// What goes in front of the next message.
    early: Mutex<Vec<u8>>,
}

impl Wire {
    /// HTTP has ended: what follows is something else.
    pub(crate) fn switch(&self) {
        self.switched.store(true, Ordering::Release);
    }

    /// Puts an interim response in front of the response that is being waited for: to be called by nobody else than
    /// its request, which then has yet to be answered. It is dropped where another is still being written, or the
    /// client does not read.
    pub(crate) fn interim(&self, head: &[u8]) {
        let mut early = self.early();
        if !self.writing.load(Ordering::Acquire) && early.len() + head.len() <= EARLY {
            early.extend_from_slice(head);
        }
    }

    fn early(&self) -> MutexGuard<'_, Vec<u8>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection was ended, if it was.
    pub(crate) fn refused(&self) -> Option<Ambiguous> {
        self.refused.get().copied()
    }
}

/// A stream of requests, none of which can be read in two ways.
pub(crate) struct Guarded<T> {
    stream: T,
    wire: Arc<Wire>,
    scanner: Scanner,
    /// Some of it was let through.
    passed: bool,
    /// What is left of the answer to a request that is refused.
    answer: Option<&'static [u8]>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(stream: T, wire: &Arc<Wire>) -> Self {
        Self {
            stream,
            wire: wire.clone(),
            scanner: Scanner::default(),
            passed: false,
            answer: None,
        }
    }
}

impl<T: AsyncWrite + Unpin> Guarded<T> {
    /// Writes what goes in front of whatever is written next.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut early = self.wire.early();
            if early.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &early))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            early.drain(..count);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guarded<T> {
    /// Answers, then breaks off.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while let Some(answer) = self.answer.filter(|answer| !answer.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, answer)) {
                Ok(count) if count > 0 => self.answer = Some(&answer[count..]),
                Ok(_) | Err(_) => self.answer = Some(&[]),
            }
        }
        // The client may be gone already: it is refused either way.
        let _ = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(io::ErrorKind::InvalidData.into())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.answer.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            if this.wire.switched.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            let Err(ambiguous) = this.scanner.scan(&buffer.filled()[before..]) else {
                this.passed = true;
                return Poll::Ready(Ok(()));
            };
            buffer.set_filled(before);
            // Set once: nothing is read behind it.
            let _ = this.wire.refused.set(ambiguous);
            let asked = this.scanner.heads > 0 && this.passed;
            this.answer = Some(if asked { &[] } else { ANSWER });
        }
        Poll::Ready(Err(ready!(this.poll_refuse(cx))))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_early(cx))?;
        self.wire.writing.store(true, Ordering::Release);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Called with nothing left to be written: what was, are whole pieces of a message, or of none.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.writing.store(false, Ordering::Release);
        ready!(self.poll_early(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_early(cx))?;
        self.wire.writing.store(true, Ordering::Release);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
}
