//! One direction of a connection, as a state machine: its state is all that an idle one costs.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Broken, Counters, Reader, Towards, Writer};

pub(super) struct Direction<'c, R, W> {
    reader: R,
    writer: W,
    state: State,
    counters: &'c Counters,
    towards: Towards,
}

enum State {
    Reading,
    /// What is left to write, and how many bytes it was.
    Writing(Bytes, usize),
    Ended,
}

/// Which end of the direction broke.
pub(super) enum Broke {
    Reader(Broken),
    Writer(Broken),
}

impl<'c, R: Reader, W: Writer> Direction<'c, R, W> {
    pub(super) fn new(reader: R, writer: W, counters: &'c Counters, towards: Towards) -> Self {
        Self {
            reader,
            writer,
            state: State::Reading,
            counters,
            towards,
        }
    }

    /// Of which this was read already.
    pub(super) fn behind(mut self, read: Bytes) -> Self {
        if !read.is_empty() {
            self.counters.add(self.towards, read.len());
            // The reader has been told that it was taken.
            self.state = State::Writing(read, 0);
        }
        self
    }

    /// Ready once the reader has ended and the writer was told; polled on, it still notices a broken reader.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        loop {
            match &mut self.state {
                State::Reading => match self.reader.poll_read(cx).map_err(Broke::Reader)? {
                    Poll::Ready(Some(chunk)) => {
                        let count = chunk.len();
                        self.state = State::Writing(chunk, count);
                    }
                    Poll::Ready(None) => {
                        self.writer.finish().map_err(Broke::Writer)?;
                        self.state = State::Ended;
                    }
                    Poll::Pending => {
                        return self
                            .writer
                            .poll_broken(cx)
                            .map(|broken| Err(Broke::Writer(broken)));
                    }
                },
                State::Writing(chunk, count) => {
                    match self.writer.poll_write(cx, chunk).map_err(Broke::Writer)? {
                        Poll::Ready(()) => {
                            self.counters.add(self.towards, *count);
                            self.reader.taken(*count).map_err(Broke::Reader)?;
                            self.state = State::Reading;
                        }
                        Poll::Pending => {
                            return self
                                .reader
                                .poll_broken(cx)
                                .map(|broken| Err(Broke::Reader(broken)));
                        }
                    }
                }
                State::Ended => {
                    return match self.reader.poll_broken(cx) {
                        Poll::Ready(broken) => Poll::Ready(Err(Broke::Reader(broken))),
                        Poll::Pending => Poll::Ready(Ok(())),
                    };
                }
            }
        }
    }
}
