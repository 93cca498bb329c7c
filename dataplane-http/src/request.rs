//! One request, as one short story: read its head, find its rule, choose an endpoint, decide, forward, report. What
//! the client sent is what routes and policy see; what the rule changes is what the application sees.

mod outgoing;
mod response;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use rand::Rng;
use tokio::time::{Instant, sleep, timeout_at};
use trefoil_api::policy;
use trefoil_dataplane_core::balance::choose;
use trefoil_dataplane_core::telemetry::Flag;
use trefoil_dataplane_core::{Authorized, authorize};

use crate::answer::{Refusal, is_grpc};
use crate::body::{Body, Source};
use crate::engine::Shared;
use crate::head::{self, Fields, Head};
use crate::identity::{Told, request_id};
use crate::mirror;
use crate::retry::wait;
use crate::routing::{Backend, Found as Routed, RequestHead, Rule};
use crate::seam::{Downstream, Owner, Server};
use crate::telemetry::{Found, Record};
use crate::upstream::{self, Lease, SendError, Version, Way};
use crate::wire::Wire;
use outgoing::{Outgoing, version};

/// Attempts beyond the first, whatever the rule, where nothing was sent or it does no harm to send it again.
const UNSENT: u32 = 2;

/// A connection from downstream, and what its requests share.
pub(crate) struct Connection {
    pub(crate) engine: Arc<Shared>,
    pub(crate) downstream: Arc<Downstream>,
    pub(crate) told: Told,
    pub(crate) found: Arc<Found>,
    pub(crate) owner: Arc<Owner>,
    /// Its bytes, where it speaks HTTP/1.
    pub(crate) wire: Arc<Wire>,
}

/// A request that was understood, and its rule.
pub(crate) struct Asked {
    pub(crate) parts: Parts,
    pub(crate) head: Head,
    pub(crate) grpc: bool,
    pub(crate) upgrade: Option<http::HeaderValue>,
    pub(crate) rule: Option<Arc<Rule>>,
    /// By which it matched the rule.
    prefix: Option<String>,
}

/// A request that may be sent.
pub(crate) struct Sending {
    server: Arc<Server>,
    authorized: Authorized,
    version: Version,
    outgoing: Outgoing,
}

impl Sending {
    pub(crate) async fn send(
        self,
        connection: &Connection,
        body: Body,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let engine = &connection.engine;
        let way = Way {
            carrier: &*engine.carrier,
            owner: &connection.owner,
            downstream: &connection.downstream,
            server: &self.server,
            authorized: &self.authorized,
            version: self.version,
            max_age: engine.max_age(),
        };
        engine
            .pool
            .send(&way, self.outgoing.request(self.version, body))
            .await
    }
}

/// An attempt that was answered.
struct Answered {
    response: Response<Incoming>,
    lease: Lease,
    /// When the response must have ended, and what it is then that has run out.
    until: Option<(Instant, &'static str)>,
    backend: Option<usize>,
}

/// What an attempt failed of, and whether the same may be sent again.
struct Failed {
    refusal: Refusal,
    again: bool,
    sent: bool,
}

impl Connection {
    /// Reports a request that never became one: what was wrong with it was answered by the one who parses.
    pub(crate) fn malformed(&self, error: Option<&hyper::Error>) {
        let refusal = match (self.wire.refused(), error) {
            (Some(ambiguous), _) => Refusal::Malformed(ambiguous.to_string()),
            (None, Some(error)) if error.is_parse_too_large() => Refusal::TooLarge,
            (None, Some(error)) if error.is_parse() => Refusal::Malformed(told(error)),
            _ => return,
        };
        let mut record = Record::new(
            &self.found,
            http::Method::default(),
            http::Uri::default(),
            http::Version::HTTP_11,
        );
        record.refused(refusal, self.engine.config.plane);
    }

    /// Answers a request, by the application or by a refusal.
    pub(crate) async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let upgrading = head::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let mut record = Record::new(
            &self.found,
            parts.method.clone(),
            parts.uri.clone(),
            parts.version,
        );
        record.grpc = is_grpc(&parts.headers);
        let plane = self.engine.config.plane;
        match self.served(parts, body, upgrading, &mut record).await {
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
        parts: Parts,
        body: Incoming,
        upgrading: Option<OnUpgrade>,
        record: &mut Record,
    ) -> Result<response::Respond, Refusal> {
        let asked = self.understood(parts, record)?;
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
        let source = Source::new(body, keep);
        record.body = Some(source.clone());
        if let Some(rule) = &asked.rule {
            mirror::copies(self, &asked, rule, &source);
        }
        let answered = self.attempts(&asked, &source, record).await?;
        let changes = response::Changes::of(asked.rule.clone(), answered.backend);
        let upgrading = upgrading.filter(|_| asked.upgrade.is_some());
        let upgrading = upgrading.map(|upgrading| (upgrading, asked));
        Ok(response::Respond::forwarded(self, answered, changes, upgrading))
    }

    /// Reads the head and finds the rule.
    fn understood(&self, mut parts: Parts, record: &mut Record) -> Result<Asked, Refusal> {
        let dialled = self
            .downstream
            .service
            .as_ref()
            .map_or("unknown", |service| &service.hostname);
        let upgrade = head::upgrade(&parts.headers);
        let head = head::read(&mut parts, dialled)?;
        record.uri = parts.uri.clone();
        record.host = Some(head.authority.clone());
        head::strip_hop(&mut parts.headers);
        // Whoever asks for a sign to go on gets it here, when the body is wanted.
        parts.headers.remove(header::EXPECT);
        self.told.tell(&mut parts.headers, &mut rand::rng());
        record.request_id = request_id(&parts.headers);
        let (rule, prefix) = self.rule(&parts, &head)?;
        record.route = rule.as_ref().map(|rule| rule.name.clone());
        Ok(Asked {
            parts,
            head,
            grpc: record.grpc,
            upgrade,
            rule,
            prefix,
        })
    }

    fn rule(&self, parts: &Parts, head: &Head) -> Result<(Option<Arc<Rule>>, Option<String>), Refusal> {
        let service = match &self.downstream.service {
            // What was handed over is never routed.
            Some(service) if self.downstream.endpoint.is_none() => service,
            _ => return Ok((None, None)),
        };
        let Some(routes) = self.engine.routes.of(&service.key()) else {
            return Ok((None, None));
        };
        let asked = RequestHead {
            host: &head.host,
            path: parts.uri.path(),
            query: parts.uri.query(),
            method: parts.method.as_str(),
            headers: &parts.headers,
        };
        match routes.find(self.downstream.destination.port(), &asked) {
            Routed::Rule(rule, prefix) => Ok((Some(rule.clone()), prefix.map(str::to_owned))),
            Routed::NoRoutes => Ok((None, None)),
            Routed::NoMatch => Err(Refusal::NoRoute(service.hostname.clone())),
        }
    }

    /// An endpoint for one attempt: what was dialled itself, or one of the rule's backends.
    fn choose(&self, rule: Option<&Rule>) -> Result<(Server, Option<usize>), Refusal> {
        if let Some(endpoint) = &self.downstream.endpoint {
            let service = self.downstream.service.clone();
            let endpoint = endpoint.clone();
            return Ok((Server { endpoint, service }, None));
        }
        let dialled = self.downstream.service.as_ref().ok_or(Refusal::Unknown)?;
        let Some(rule) = rule else {
            return Ok((self.endpoint(dialled.key(), 0)?, None));
        };
        let missing = || Refusal::NoBackend(rule.name.clone());
        let weight = rule.weight();
        let at = (weight > 0).then(|| rand::rng().random_range(0..weight));
        let backend = at.and_then(|at| rule.backend(at)).ok_or_else(missing)?;
        let service = backend.service.clone().ok_or_else(missing)?;
        let server = self
            .endpoint(service, backend.port)
            .map_err(|refusal| match refusal {
                Refusal::Unknown => missing(),
                other => other,
            })?;
        let index = rule
            .backends
            .iter()
            .position(|other: &Backend| std::ptr::eq(other, backend));
        Ok((server, index))
    }

    /// An endpoint of a service, by its key.
    pub(crate) fn endpoint(&self, key: String, port: u16) -> Result<Server, Refusal> {
        let known = self.engine.store.snapshot();
        let service = known.service(&key).ok_or(Refusal::Unknown)?;
        let mut dialled = self.downstream.destination;
        if port > 0 {
            dialled.set_port(port);
        }
        let near = self.downstream.vantages();
        match choose(&known, &service, &near, dialled, &mut rand::rng()) {
            Some(endpoint) => Ok(Server {
                endpoint,
                service: Some(service),
            }),
            None => Err(Refusal::NoEndpoint(service.hostname.clone())),
        }
    }

    /// Decides about a request to `server`, and makes it ready.
    pub(crate) fn sending(
        &self,
        asked: &Asked,
        server: Arc<Server>,
        backend: Option<&Backend>,
    ) -> Result<Sending, Refusal> {
        Ok(Sending {
            authorized: self.authorized(asked, &server)?,
            version: version(asked, &server),
            outgoing: Outgoing::of(asked, backend),
            server,
        })
    }

    /// The decision of policy, about what the client asked.
    pub(crate) fn authorized(&self, asked: &Asked, server: &Server) -> Result<Authorized, Refusal> {
        let fields = Fields(&asked.parts.headers);
        let request = policy::Request {
            method: asked.parts.method.as_str(),
            path: asked.parts.uri.path(),
            host: &asked.head.host,
            headers: &fields,
        };
        let Downstream { peer, source, .. } = &*self.downstream;
        let to = &server.endpoint;
        let allowed = authorize(
            &self.engine.store,
            peer,
            &to.workload,
            source.ip(),
            to.address,
            Some(request),
        );
        Ok(allowed?)
    }

    /// A redirect reaches no endpoint; it is still not for those whom none of them would answer.
    fn allowed_to_ask(&self, asked: &Asked) -> Result<(), Refusal> {
        match self
            .downstream
            .service
            .as_ref()
            .map(|service| self.endpoint(service.key(), 0))
        {
            Some(Ok(server)) => self.authorized(asked, &server).map(|_| ()),
            // Nobody to guard.
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Tries until there is an answer, or no more is to be tried.
    async fn attempts(
        &self,
        asked: &Asked,
        source: &Source,
        record: &mut Record,
    ) -> Result<Answered, Refusal> {
        let rule = asked.rule.as_deref();
        let retry = rule.and_then(|rule| rule.retry.as_ref());
        if let Some(retry) = retry {
            retry.budget.deposit();
        }
        let whole = rule
            .and_then(|rule| rule.request_timeout)
            .map(|limit| record.began + limit);
        let mut tried = 0;
        loop {
            record.attempts = tried + 1;
            let failed = match self.attempt(asked, source, whole, record).await {
                Ok(answered) => {
                    let code = answered.response.status().as_u16();
                    let again = retry.filter(|retry| {
                        tried < retry.attempts && retry.codes.contains(&code) && source.replayable()
                    });
                    match again {
                        Some(retry) if retry.budget.withdraw() => None,
                        _ => return Ok(answered),
                    }
                }
                Err(failed) => Some(failed),
            };
            if let Some(Failed { refusal, again, sent }) = failed {
                let spared = !sent && tried < UNSENT;
                let more =
                    spared || retry.is_some_and(|retry| tried < retry.attempts && retry.budget.withdraw());
                let late = whole.is_some_and(|until| until <= Instant::now());
                if !again || !more || late {
                    return Err(refusal);
                }
            }
            let least = retry.map_or(Duration::ZERO, |retry| retry.backoff);
            let pause = wait(least, tried, rand::rng().random());
            match whole {
                Some(until) if until <= Instant::now() + pause => {
                    return Err(Refusal::TimedOut("the route's limit for the request"));
                }
                _ => sleep(pause).await,
            }
            tried += 1;
        }
    }

    /// One attempt: choose, decide, send.
    async fn attempt(
        &self,
        asked: &Asked,
        source: &Source,
        whole: Option<Instant>,
        record: &mut Record,
    ) -> Result<Answered, Failed> {
        let never = |refusal| Failed {
            refusal,
            again: false,
            sent: false,
        };
        let rule = asked.rule.as_deref();
        let (server, backend) = self.choose(rule).map_err(never)?;
        record.service.clone_from(&server.service);
        let server = Arc::new(server);
        record.server = Some(server.clone());
        let changed = backend.and_then(|at| rule.map(|rule| &rule.backends[at]));
        let sending = self.sending(asked, server, changed).map_err(never)?;
        record.audit = sending.authorized.audit().to_vec();
        record.policy = match sending.authorized.reason() {
            policy::Reason::Matched(name) => Some(name.clone()),
            _ => None,
        };
        self.engine.config.connections.audited(&record.audit);
        let until = self.limit(rule, whole);
        let sending = sending.send(self, source.attempt());
        let sent = match until {
            None => sending.await,
            Some((until, what)) => match timeout_at(until, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    return Err(Failed {
                        refusal: Refusal::TimedOut(what),
                        again: source.replayable(),
                        sent: true,
                    });
                }
            },
        };
        match sent {
            Ok((response, lease)) => Ok(Answered {
                response,
                lease,
                until,
                backend,
            }),
            Err(SendError::Open(failure)) => Err(Failed {
                again: failure.flag != Flag::Deny,
                sent: false,
                refusal: failure.into(),
            }),
            Err(SendError::Broken { error, reused }) => Err(Failed {
                refusal: Refusal::Broken(told(&error)),
                again: source.replayable(),
                // It may be sent again where it was not acted upon, and where that is no harm (RFC 9110, section 9.2.2).
                sent: !(upstream::refused(&error)
                    || reused && upstream::ended(&error) && asked.parts.method.is_idempotent()),
            }),
        }
    }

    /// When the attempt must have been answered, to its end.
    fn limit(&self, rule: Option<&Rule>, whole: Option<Instant>) -> Option<(Instant, &'static str)> {
        let whole = whole.map(|until| (until, "the route's limit for the request"));
        let attempt = rule.and_then(|rule| rule.attempt_timeout);
        let attempt = attempt.map(|limit| (Instant::now() + limit, "the route's limit for an attempt"));
        match (whole, attempt) {
            (Some(whole), Some(attempt)) => Some(if attempt.0 < whole.0 { attempt } else { whole }),
            (one, other) => one.or(other),
        }
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
