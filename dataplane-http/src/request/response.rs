//! What the client gets: the application's response as the rule changes it, streamed, counted, and cut where its time
//! has run out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Sleep, sleep_until};
use trefoil_dataplane_core::telemetry::Layer;

use super::attempts::Answered;
use super::{Asked, Connection, told};
use crate::answer::{GRPC_STATUS, Refusal, answer};
use crate::body::{Body, BodyError};
use crate::filters::HeaderChange;
use crate::head;
use crate::routing::Rule;
use crate::telemetry::Record;
use crate::upgrade;
use crate::upstream::Lease;

/// What a rule and a backend change of a response.
pub(super) struct Changes {
    rule: Option<Arc<Rule>>,
    backend: Option<usize>,
}

impl Changes {
    pub(super) fn of(rule: Option<Arc<Rule>>, backend: Option<usize>) -> Self {
        Self { rule, backend }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        let Some(rule) = &self.rule else {
            return;
        };
        let backend = self.backend.and_then(|at| rule.backends.get(at));
        let of_backend = backend.iter().flat_map(|backend| &backend.response);
        let all = of_backend.chain(&rule.filters.response);
        all.for_each(|change: &HeaderChange| change.apply(headers));
    }
}

/// A response that is ready but for its record.
pub(super) enum Respond {
    Redirect(Box<Response<Body>>),
    Forwarded(Box<Forwarded>),
}

pub(super) struct Forwarded {
    connection: Arc<Connection>,
    answered: Answered,
    changes: Changes,
    upgrading: Option<(OnUpgrade, Asked)>,
}

impl Respond {
    pub(super) fn redirect(status: StatusCode, location: &str) -> Self {
        let mut response = answer(status, String::new());
        // Of characters that were accepted in the request or validated with the route.
        if let Ok(location) = HeaderValue::from_str(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Self::Redirect(Box::new(response))
    }

    pub(super) fn forwarded(
        connection: &Arc<Connection>,
        answered: Answered,
        changes: Changes,
        upgrading: Option<(OnUpgrade, Asked)>,
    ) -> Self {
        Self::Forwarded(Box::new(Forwarded {
            connection: connection.clone(),
            answered,
            changes,
            upgrading,
        }))
    }

    /// The response, reported by `record` when it ends.
    pub(super) fn with(self, mut record: Record, plane: Layer) -> Response<Body> {
        match self {
            Self::Redirect(response) => {
                record.answered(response.status());
                record.completed();
                *response
            }
            Self::Forwarded(forwarded) => forwarded.with(record, plane),
        }
    }
}

impl Forwarded {
    fn with(self, mut record: Record, plane: Layer) -> Response<Body> {
        let Answered {
            response,
            lease,
            until,
            ..
        } = self.answered;
        record.answered(response.status());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switched(&self.connection, response, self.upgrading, record, plane);
        }
        let (mut parts, body) = response.into_parts();
        parts.version = http::Version::default();
        parts.extensions.clear();
        head::strip_hop(&mut parts.headers);
        head::strip_ours(&mut parts.headers);
        record.grpc_status = grpc_status(&parts.headers);
        self.changes.apply(&mut parts.headers);
        let mut reported = Reported {
            body,
            plane,
            using: Some((lease, record)),
            until: until.map(|(until, what)| (Box::pin(sleep_until(until)), what)),
        };
        reported.ended();
        Response::from_parts(parts, reported.boxed_unsync())
    }
}

/// The application leaves HTTP, if it was asked to: what follows are bytes.
fn switched(
    connection: &Arc<Connection>,
    mut response: Response<Incoming>,
    upgrading: Option<(OnUpgrade, Asked)>,
    mut record: Record,
    plane: Layer,
) -> Response<Body> {
    let agreed = head::upgrade(response.headers());
    let (Some((client, asked)), Some(protocol)) = (upgrading, agreed) else {
        let refusal = Refusal::Broken("it switched to a protocol that nobody had asked for".into());
        let response = refusal.answer(plane, record.grpc);
        record.refused(refusal, plane);
        return response;
    };
    connection.wire.switch();
    let server = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    parts.extensions.clear();
    head::strip_hop(&mut parts.headers);
    head::strip_ours(&mut parts.headers);
    parts.headers.insert(header::UPGRADE, protocol);
    parts
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    tokio::spawn(upgrade::switched(
        connection.clone(),
        asked,
        (client, server),
        record,
    ));
    let nothing = Empty::new().map_err(|never| match never {});
    Response::from_parts(parts, nothing.boxed_unsync())
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// The body of a response, until it ends.
struct Reported {
    body: Incoming,
    plane: Layer,
    using: Option<(Lease, Record)>,
    until: Option<(Pin<Box<Sleep>>, &'static str)>,
}

impl Reported {
    /// Lets go of the connection and the record, where nothing follows.
    fn ended(&mut self) {
        if self.body.is_end_stream()
            && let Some((lease, mut record)) = self.using.take()
        {
            record.completed();
            lease.give_back();
            self.until = None;
        }
    }

    fn broken(&mut self, refusal: Refusal) -> BodyError {
        if let Some((_, mut record)) = self.using.take() {
            record.broken(refusal.clone(), self.plane);
        }
        refusal.into()
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
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                let error = this.broken(Refusal::Broken(told(&error)));
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Ready(None) => {
                if let Some((lease, mut record)) = this.using.take() {
                    record.completed();
                    lease.give_back();
                }
                return Poll::Ready(None);
            }
            Poll::Pending => {
                let late = this
                    .until
                    .as_mut()
                    .and_then(|(sleep, what)| match sleep.as_mut().poll(cx) {
                        Poll::Ready(()) => Some(*what),
                        Poll::Pending => None,
                    });
                return match late {
                    Some(what) if this.using.is_some() => {
                        Poll::Ready(Some(Err(this.broken(Refusal::TimedOut(what)))))
                    }
                    _ => Poll::Pending,
                };
            }
        };
        if let Some((_, record)) = &mut this.using {
            if let Some(data) = frame.data_ref() {
                record.sent += data.len() as u64;
            }
            if let Some(trailers) = frame.trailers_ref() {
                record.grpc_status = grpc_status(trailers).or(record.grpc_status);
            }
        }
        this.ended();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
