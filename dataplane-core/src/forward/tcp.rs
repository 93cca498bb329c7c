//! A socket as the side of a connection. Small reads go through one buffer for each thread and are copied to
//! their size; a socket that fills it gets buffers of its own, larger each time they are filled.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::buffer::spare_capacity;
use rustix::net::{SendFlags, Shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{Broken, Reader, Writer};

/// The first read takes up to this much, through the thread's buffer.
const SMALL: usize = 16 * 1024;
/// What a read takes once reads fill up; in steps of [`STEP`].
const LARGE: usize = 256 * 1024;
const STEP: usize = 4;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SMALL].into_boxed_slice());
}

pub(super) struct TcpReader<'s> {
    stream: &'s TcpStream,
    /// How much the next read takes.
    size: usize,
    /// Made when first needed: most connections are never watched while they are not read.
    watch: Option<Pin<Box<dyn Future<Output = io::Error> + Send + 's>>>,
}

pub(super) struct TcpWriter<'s> {
    stream: &'s TcpStream,
}

pub(super) fn halves(stream: &TcpStream) -> (TcpReader<'_>, TcpWriter<'_>) {
    let reader = TcpReader {
        stream,
        size: SMALL,
        watch: None,
    };
    (reader, TcpWriter { stream })
}

impl TcpReader<'_> {
    fn read(&mut self) -> io::Result<Bytes> {
        if self.size <= SMALL {
            return SCRATCH.with_borrow_mut(|scratch| {
                let count = receive(self.stream, SMALL, || {
                    rustix::io::read(self.stream, &mut scratch[..])
                })?;
                self.adapt(count);
                Ok(Bytes::copy_from_slice(&scratch[..count]))
            });
        }
        let mut buffer = Vec::with_capacity(self.size);
        let count = receive(self.stream, self.size, || {
            rustix::io::read(self.stream, spare_capacity(&mut buffer))
        })?;
        self.adapt(count);
        // A queue of small pieces must not hold large buffers.
        if count < buffer.capacity() / 2 {
            return Ok(Bytes::copy_from_slice(&buffer));
        }
        Ok(buffer.into())
    }

    /// The next size, after a read of `count`.
    fn adapt(&mut self, count: usize) {
        if count == self.size {
            self.size = (self.size * STEP).min(LARGE);
        } else if count < self.size / STEP {
            self.size = (self.size / STEP).max(SMALL);
        }
    }
}

/// One read of up to `size` bytes. A short one has emptied the socket: it is not asked again before the
/// kernel says that there is more.
fn receive(
    stream: &TcpStream,
    size: usize,
    mut read: impl FnMut() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    transfer(stream, Interest::READABLE, size, &mut read)
}

/// One call that moves up to `size` bytes; moving fewer, but some, means that the next would block.
fn transfer(
    stream: &TcpStream,
    interest: Interest,
    size: usize,
    call: &mut dyn FnMut() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = None;
    let result = stream.try_io(interest, || {
        let count = call()?;
        moved = Some(count);
        if count > 0 && count < size {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match (moved, result) {
        (Some(count), _) => Ok(count),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Reader for TcpReader<'_> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.read() {
                Ok(bytes) if bytes.is_empty() => return Poll::Ready(Ok(None)),
                Ok(bytes) => return Poll::Ready(Ok(Some(bytes))),
                Err(error) if retry(&error) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn taken(&mut self, _: usize) -> Result<(), Broken> {
        Ok(())
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let stream = self.stream;
        let watch = self.watch.get_or_insert_with(|| Box::pin(failure(stream)));
        watch.as_mut().poll(cx).map(Broken::Socket)
    }
}

/// Resolves once the socket is in error, which a reset by its other end is.
async fn failure(stream: &TcpStream) -> io::Error {
    match stream.ready(Interest::ERROR).await {
        Ok(_) => match stream.take_error() {
            Ok(Some(error)) | Err(error) => error,
            // Another reader of the error was faster.
            Ok(None) => io::ErrorKind::ConnectionReset.into(),
        },
        Err(error) => error,
    }
}

impl Writer for TcpWriter<'_> {
    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        while !chunk.is_empty() {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = transfer(self.stream, Interest::WRITABLE, chunk.len(), &mut || {
                rustix::net::send(self.stream, chunk, SendFlags::NOSIGNAL)
            });
            match sent {
                Ok(count) => chunk.advance(count),
                Err(error) if retry(&error) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) -> Result<(), Broken> {
        match rustix::net::shutdown(self.stream, Shutdown::Write) {
            // Not connected: the other end is gone already, which its reader tells.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
            Err(error) => Err(Broken::Socket(error.into())),
        }
    }

    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<Broken> {
        // The reader of the same socket sees it.
        Poll::Pending
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
