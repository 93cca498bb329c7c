//! A connection's turn: what is ready to be sent on it goes together.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls its future once those have run that were ready before it: they may have more for it.
#[derive(Debug)]
pub(super) struct InTurn<F> {
    future: F,
    waited: bool,
}

impl<F> InTurn<F> {
    pub(super) fn new(future: F) -> Self {
        let waited = false;
        Self { future, waited }
    }
}

impl<F: Future + Unpin> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.waited = !self.waited;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.future).poll(cx)
    }
}
