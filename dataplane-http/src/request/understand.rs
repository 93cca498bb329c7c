//! What a request is: its head, read once, and the rule that it falls under.

use std::sync::Arc;

use http::header;
use http::request::Parts;
use trefoil_dataplane_core::telemetry::Reporter;
use trefoil_dataplane_state::state::Service;

use super::{Asked, Connection};
use crate::answer::Refusal;
use crate::grpc;
use crate::head::{self, Head, HeadRefused};
use crate::identity::request_id;
use crate::routing::{Found as Routed, RequestHead, Rule, ServiceRoutes};
use crate::telemetry::Record;

impl Connection {
    /// Reads the head and finds the rule.
    pub(super) fn understood(&self, mut parts: Parts, record: &mut Record) -> Result<Asked, Refusal> {
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
        let timeout = match record.grpc {
            true => grpc::timeout(&parts.headers).map_err(|_| HeadRefused::Timeout)?,
            false => None,
        };
        let (rule, prefix) = self.rule(&parts, &head)?;
        record.route = rule.as_ref().map(|rule| rule.name.clone());
        Ok(Asked {
            parts,
            head,
            grpc: record.grpc,
            timeout,
            upgrade,
            rule,
            prefix,
            stream: None,
        })
    }

    fn rule(&self, parts: &Parts, head: &Head) -> Result<(Option<Arc<Rule>>, Option<String>), Refusal> {
        let service = match &self.downstream.service {
            // What was handed over is never routed.
            Some(service) if self.downstream.endpoint.is_none() => service,
            _ => return Ok((None, None)),
        };
        let Some(routes) = self.routes(service) else {
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

    /// The routes that are this end's to apply: the client's own at its own end, before those of the service, which its
    /// waypoint applies where it has one.
    fn routes(&self, service: &Service) -> Option<Arc<ServiceRoutes>> {
        let (engine, key) = (&self.engine, service.key());
        if engine.config.reporter == Reporter::Source {
            let clients = engine.routes.of_clients(&key, &self.downstream.own.namespace);
            let port = self.downstream.destination.port();
            if let Some(clients) = clients.filter(|routes| routes.are_for(port)) {
                return Some(clients);
            }
            // As it is now: what has been given a waypoint meanwhile has it.
            let now = engine.store.snapshot().service(&key);
            if now.is_some_and(|service| service.waypoint.is_some()) {
                return None;
            }
        }
        engine.routes.of(&key)
    }
}
