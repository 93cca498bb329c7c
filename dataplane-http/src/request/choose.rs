//! Where a request goes, and whether it may: an endpoint of what was dialled or of a rule's backend, and the decision
//! of policy about it. Nothing is sent without that decision's proof.

use std::sync::Arc;

use http::Response;
use rand::Rng;
use tokio::time::Instant;
use trefoil_api::policy;
use trefoil_dataplane_core::authorize;
use trefoil_dataplane_core::balance::choose;
use trefoil_dataplane_core::telemetry::Reporter;

use super::outgoing::{Outgoing, version};
use super::{Asked, Connection};
use crate::answer::Refusal;
use crate::body::Body;
use crate::head::Fields;
use crate::incoming::Incoming;
use crate::routing::{Backend, Rule};
use crate::seam::{Downstream, Permit, Server};
use crate::under_way::{Passage, as_known};
use crate::upstream::{Lease, SendError, Version, Way};

/// A request that may be sent.
pub(crate) struct Sending {
    server: Arc<Server>,
    pub(super) permit: Permit,
    version: Version,
    outgoing: Outgoing,
    /// Who wants to hear of interim responses.
    interim: Option<Arc<Passage>>,
}

impl Sending {
    /// Tells the application how long the call still has.
    pub(super) fn has_until(&mut self, until: Instant) {
        self.outgoing.has(until.saturating_duration_since(Instant::now()));
    }

    /// Has interim responses told to `passage`.
    pub(super) fn tells(&mut self, passage: &Arc<Passage>) {
        self.interim = Some(passage.clone());
    }

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
            permit: &self.permit,
            version: self.version,
            max_age: engine.max_age(),
        };
        let request = self.outgoing.request(self.version, body);
        connection.pool.send(&way, request, self.interim.as_ref()).await
    }
}

impl Connection {
    /// An endpoint for one attempt: what was dialled itself, or one of the rule's backends.
    pub(super) fn choose(&self, rule: Option<&Rule>) -> Result<(Server, Option<usize>), Refusal> {
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
            permit: self.permit(asked, &server)?,
            version: version(asked, &server),
            outgoing: Outgoing::of(asked, backend),
            interim: None,
            server,
        })
    }

    /// The decision of policy, about what the client asked; that is not the client's own end's to make.
    pub(crate) fn permit(&self, asked: &Asked, server: &Server) -> Result<Permit, Refusal> {
        if self.engine.config.reporter == Reporter::Source {
            return Ok(Permit::Undecided);
        }
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
            request.into(),
        );
        Ok(Permit::Authorized(allowed?))
    }

    /// The same about what is under way, as its endpoint is now known. One that is gone has nobody to guard.
    pub(crate) fn still_authorized(&self, asked: &Asked, server: &Server) -> Result<(), Refusal> {
        match as_known(&self.engine.store, server) {
            Some(now) => self.permit(asked, &now).map(|_| ()),
            None => Ok(()),
        }
    }

    /// A redirect reaches no endpoint; it is still not for those whom none of them would answer.
    pub(super) fn allowed_to_ask(&self, asked: &Asked) -> Result<(), Refusal> {
        match self
            .downstream
            .service
            .as_ref()
            .map(|service| self.endpoint(service.key(), 0))
        {
            Some(Ok(server)) => self.permit(asked, &server).map(|_| ()),
            // Nobody to guard.
            Some(Err(_)) | None => Ok(()),
        }
    }
}
