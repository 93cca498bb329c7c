//! One request, as one short story: read its head, find its rule, choose an endpoint, decide, forward, report. What
//! the client sent is what routes and policy see; what the rule changes is what the application sees.

mod attempts;
mod choose;
mod limits;
mod outgoing;
mod reported;
mod response;
mod understand;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use tokio::task::JoinSet;

use crate::answer::{Refusal, is_grpc};
use crate::body::{Body, Source};
use crate::engine::Shared;
use crate::head::{self, Head};
use crate::http2::{Asking, Stream};
use crate::identity::Told;
use crate::incoming::{Broken, Incoming};
use crate::mirror;
use crate::routing::Rule;
use crate::seam::{Downstream, Owner};
use crate::telemetry::{Found, Record};
use crate::under_way::UnderWay;
use crate::upgrade::Leaving;
use crate::upstream::Pool;
use crate::websocket;
use crate::wire::Wire;
pub(crate) use choose::Sending;

/// A connection from downstream, and what its requests share.
pub(crate) struct Connection {
    pub(crate) engine: Arc<Shared>,
    pub(crate) downstream: Arc<Downstream>,
    pub(crate) told: Told,
    pub(crate) found: Arc<Found>,
    pub(crate) owner: Arc<Owner>,
    pub(crate) pool: Arc<Pool>,
    /// Requests that have left HTTP: they are as much of the connection as those that have not.
    pub(crate) left_http: Mutex<JoinSet<()>>,
    /// Its bytes, where it speaks HTTP/1.
    pub(crate) wire: Arc<Wire>,
    /// What is to be decided about again when something changes.
    pub(crate) under_way: Arc<UnderWay>,
    /// Whether there was any request.
    pub(crate) asked: AtomicBool,
}

/// A request that was understood, and its rule.
pub(crate) struct Asked {
    pub(crate) parts: Parts,
    pub(crate) head: Head,
    pub(crate) grpc: bool,
    /// How long its caller gives it.
    timeout: Option<Duration>,
    pub(crate) upgrade: Option<http::HeaderValue>,
    pub(crate) rule: Option<Arc<Rule>>,
    /// By which it matched the rule.
    prefix: Option<String>,
    /// Its stream, where its client speaks HTTP/2.
    stream: Option<Stream>,
}

/// A request as it came: what its client agreed to leave HTTP by, and its stream.
struct Whole {
    parts: Parts,
    body: Incoming,
    leaves: Option<Leaving>,
    stream: Option<Stream>,
}

impl Connection {
    /// Carries what has left HTTP to its end.
    fn leaves_http(&self, carrying: impl Future<Output = ()> + Send + 'static) {
        let mut held = self.left_http.lock().unwrap_or_else(PoisonError::into_inner);
        while held.try_join_next().is_some() {}
        held.spawn(carrying);
    }

    /// Reports a request that never became one: what was wrong with it was answered by the one who parses, or its
    /// client left before it had asked for anything.
    pub(crate) fn malformed(&self, error: Option<&Broken>) {
        let refusal = match (self.wire.refused(), error) {
            (Some(ambiguous), _) => Refusal::Malformed(ambiguous.to_string()),
            (None, Some(Broken::One(error))) if error.is_parse_too_large() => Refusal::TooLarge,
            (None, Some(Broken::One(error))) if error.is_parse() => Refusal::Malformed(told(error)),
            (None, Some(_)) if !self.asked.load(Ordering::Relaxed) => return drop(self.unasked()),
            _ => return,
        };
        self.unasked().refused(refusal, self.engine.config.plane);
    }

    /// The record of a request of which nothing is known; that its client left, unless more is said.
    fn unasked(&self) -> Record {
        let (method, uri) = (http::Method::default(), http::Uri::default());
        Record::new(&self.found, method, uri, http::Version::HTTP_11)
    }

    /// Answers a request that came over HTTP/1.
    pub(crate) async fn answer_one(
        self: Arc<Self>,
        mut request: Request<hyper::body::Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let leaves = head::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request).into());
        self.answer(request.map(Incoming::One), leaves, None).await
    }

    /// Answers a request that came over HTTP/2.
    pub(crate) async fn answer_two(self: Arc<Self>, asking: Asking) -> Result<Response<Body>, Infallible> {
        let leaves = asking.leaves.map(Leaving::from);
        self.answer(asking.request, leaves, Some(asking.stream)).await
    }

    /// By the application or by a refusal.
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        leaves: Option<Leaving>,
        stream: Option<Stream>,
    ) -> Result<Response<Body>, Infallible> {
        self.asked.store(true, Ordering::Relaxed);
        let tunnel = websocket::read(&mut request, &mut rand::rng());
        let (parts, body) = request.into_parts();
        let mut record = Record::new(
            &self.found,
            parts.method.clone(),
            parts.uri.clone(),
            parts.version,
        );
        // What leaves HTTP is no call.
        record.grpc = is_grpc(&parts.headers) && leaves.is_none();
        let plane = self.engine.config.plane;
        let served = match tunnel {
            Ok(()) => {
                self.served(
                    Whole {
                        parts,
                        body,
                        leaves,
                        stream,
                    },
                    &mut record,
                )
                .await
            }
            Err(refused) => Err(refused.into()),
        };
        match served {
            Ok(respond) => Ok(respond.with(record, plane)),
            Err(refusal) => {
                let response = refusal.answer(plane, record.grpc);
                record.refused(refusal, plane);
                Ok(response)
            }
        }
    }

    async fn served(
        self: &Arc<Self>,
        request: Whole,
        record: &mut Record,
    ) -> Result<response::Respond, Refusal> {
        let Whole {
            parts,
            body,
            leaves,
            stream,
        } = request;
        let asked = Arc::new(Asked {
            stream,
            ..self.understood(parts, record)?
        });
        if let Some(rule) = &asked.rule
            && let Some(redirect) = &rule.filters.redirect
        {
            let port = self.downstream.destination.port();
            let (status, location) =
                redirect.answer(&asked.head.host, port, &asked.parts.uri, asked.prefix.as_deref());
            self.allowed_to_ask(&asked)?;
            return Ok(response::Respond::redirect(status, &location));
        }
        let keep = asked.rule.as_ref().is_some_and(|rule| rule.retry.is_some());
        let source = Source::new(body, keep, record.grpc);
        record.body = Some(source.clone());
        if let Some(rule) = &asked.rule {
            mirror::copies(self, &asked, rule, &source);
        }
        let answered = self.attempts(&asked, &source, record).await?;
        let changes = response::Changes::of(asked.rule.clone(), answered.backend);
        let leaves = leaves.filter(|_| asked.upgrade.is_some());
        let leaves = leaves.map(|leaves| (leaves, asked));
        Ok(response::Respond::forwarded(self, answered, changes, leaves))
    }
}

/// An error with what is behind it, which alone says little.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        text.push_str(": ");
        text.push_str(&error.to_string());
        behind = error.source();
    }
    text
}
