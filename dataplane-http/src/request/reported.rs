//! The body of a response as it streams: counted, reported when it ends, and ended before its time where policy no
//! longer allows it or its time has run out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use trefoil_dataplane_core::telemetry::Layer;

use super::attempts::Using;
use crate::answer::Refusal;
use crate::body::{BodyError, cut};
use crate::grpc;
use crate::incoming::Incoming;
use crate::telemetry::Record;
use crate::under_way::Passage;
use crate::upstream::{self, Lease};

/// The body of a response.
pub(super) struct Reported {
    plane: Layer,
    passing: Option<Passing>,
}

/// A body that has not ended.
struct Passing {
    body: Incoming,
    lease: Lease,
    record: Record,
    passage: Arc<Passage>,
    until: Option<(Pin<Box<Sleep>>, &'static str)>,
    /// Trailers can say why it ends, between two messages of gRPC.
    says: bool,
}

impl Reported {
    pub(super) fn new(body: Incoming, using: Using, record: Record, plane: Layer) -> Self {
        let says = record.grpc && record.is_http2() && body.size_hint().exact().is_none();
        let mut reported = Self {
            plane,
            passing: Some(Passing {
                body,
                lease: using.lease,
                record,
                passage: using.passage,
                until: using
                    .until
                    .map(|(until, what)| (Box::pin(sleep_until(until)), what)),
                says,
            }),
        };
        reported.ended();
        reported
    }

    /// Lets go of the connection and the record, where nothing follows.
    fn ended(&mut self) {
        let ends = |passing: &mut Passing| passing.body.is_end_stream();
        if let Some(passing) = self.passing.take_if(ends) {
            passing.completed();
        }
    }

    /// Ends before its time: with trailers that say why, where there may be some, else so that it does not look
    /// like its end.
    fn broken(&mut self, refusal: Refusal) -> Option<Result<Frame<Bytes>, BodyError>> {
        let mut passing = self.passing.take()?;
        let says = passing.says && passing.record.sent_messages.between();
        if says {
            passing.record.grpc_status = Some(refusal.grpc_status());
        }
        passing.record.broken(refusal.clone(), self.plane);
        Some(match says {
            true => Ok(Frame::trailers(refusal.trailers(self.plane))),
            false => Err(cut(refusal)),
        })
    }
}

impl Passing {
    fn completed(mut self) {
        self.record.completed();
        self.lease.give_back();
    }

    /// Ready where it has to end before its time.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if let Poll::Ready(refusal) = self.passage.poll_response(cx) {
            return Poll::Ready(refusal);
        }
        match &mut self.until {
            Some((sleep, what)) => sleep.as_mut().poll(cx).map(|()| Refusal::TimedOut(what)),
            None => Poll::Pending,
        }
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.record.sent += data.len() as u64;
            if self.record.grpc {
                self.record.sent_messages.pass(data);
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.record.grpc_status = grpc::status(trailers).or(self.record.grpc_status);
        }
    }
}

impl http_body::Body for Reported {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(passing) = &mut this.passing else {
            return Poll::Ready(None);
        };
        // First: a body that always has more is still to end.
        if let Poll::Ready(refusal) = passing.poll_cut(cx) {
            return Poll::Ready(this.broken(refusal));
        }
        match std::task::ready!(Pin::new(&mut passing.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                passing.count(&frame);
                this.ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let broken = upstream::broke(&error);
                Poll::Ready(this.broken(broken))
            }
            None => {
                if let Some(passing) = this.passing.take() {
                    passing.completed();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.passing
            .as_ref()
            .is_none_or(|passing| passing.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.passing {
            Some(passing) => passing.body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
