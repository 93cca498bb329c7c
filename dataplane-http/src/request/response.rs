//! What the client gets: the application's response as the rule changes it, or what it switches to.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use trefoil_dataplane_core::telemetry::Layer;

use super::attempts::Answered;
use super::reported::Reported;
use super::{Asked, Connection};
use crate::answer::{Refusal, answer};
use crate::body::Body;
use crate::filters::HeaderChange;
use crate::grpc;
use crate::head;
use crate::incoming::Incoming;
use crate::routing::Rule;
use crate::telemetry::Record;
use crate::upgrade::{self, Leaving};
use crate::websocket;

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
    leaves: Option<(Leaving, Arc<Asked>)>,
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
        leaves: Option<(Leaving, Arc<Asked>)>,
    ) -> Self {
        Self::Forwarded(Box::new(Forwarded {
            connection: connection.clone(),
            answered,
            changes,
            leaves,
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
        let Answered { response, using, .. } = self.answered;
        record.answered(response.status());
        // To a client of HTTP/2, whatever succeeds has switched.
        let tunnel = self.leaves.is_some() && record.is_http2() && response.status().is_success();
        if tunnel || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switched(&self.connection, response, self.leaves, record, plane);
        }
        let (mut parts, body) = response.into_parts();
        parts.version = http::Version::default();
        parts.extensions.clear();
        head::strip_hop(&mut parts.headers);
        head::strip_ours(&mut parts.headers);
        record.grpc_status = grpc::status(&parts.headers);
        self.changes.apply(&mut parts.headers);
        let reported = Reported::new(body, using, record, plane);
        Response::from_parts(parts, reported.boxed_unsync())
    }
}

/// The application leaves HTTP, if it was asked to: what follows are bytes.
fn switched(
    connection: &Arc<Connection>,
    mut response: Response<Incoming>,
    leaves: Option<(Leaving, Arc<Asked>)>,
    mut record: Record,
    plane: Layer,
) -> Response<Body> {
    let (client, asked, protocol) = match agreed(&response, leaves, record.is_http2()) {
        Ok(agreed) => agreed,
        Err(refusal) => {
            let response = refusal.answer(plane, record.grpc);
            record.refused(refusal, plane);
            return response;
        }
    };
    connection.wire.switch();
    let server = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    parts.extensions.clear();
    head::strip_hop(&mut parts.headers);
    head::strip_ours(&mut parts.headers);
    if record.is_http2() {
        parts.status = StatusCode::OK;
        parts.version = http::Version::HTTP_2;
        parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        record.answered(parts.status);
    } else {
        parts.headers.insert(header::UPGRADE, protocol);
        let upgrade = HeaderValue::from_static("upgrade");
        parts.headers.insert(header::CONNECTION, upgrade);
    }
    let ends = (client, server);
    connection.leaves_http(upgrade::switched(connection.clone(), asked, ends, record));
    let nothing = Empty::new().map_err(|never| match never {});
    Response::from_parts(parts, nothing.boxed_unsync())
}

/// What both ends agreed on, if they did.
fn agreed(
    response: &Response<Incoming>,
    leaves: Option<(Leaving, Arc<Asked>)>,
    websocket: bool,
) -> Result<(Leaving, Arc<Asked>, HeaderValue), Refusal> {
    let broken = |what: &str| Refusal::Broken(what.into());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(broken("it did not switch to the protocol that it was asked for"));
    }
    let (Some((client, asked)), Some(protocol)) = (leaves, head::upgrade(response.headers())) else {
        return Err(broken("it switched to a protocol that nobody had asked for"));
    };
    if websocket && !websocket::understood(&asked.parts.headers, response.headers()) {
        return Err(broken(
            "it does not speak WebSocket: its answer is none to the key",
        ));
    }
    Ok((client, asked, protocol))
}
