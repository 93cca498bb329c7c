//! What would become of a connection, by what is held now and by the code that decides about real ones.
//! Nothing is dialled, and nobody may connect by what is answered.

use std::net::SocketAddr;
use std::sync::Arc;

use trefoil_api::Identity;
use trefoil_api::names::port;
use trefoil_api::policy::{Asked, Reason};
use trefoil_api::question::{Arriving, Evaluation, Fault, Leaving, Route};

use super::Proxy;
use super::failure::Failure;
use super::inbound::may_be_requests;
use super::outbound::{Hop, hop, refused_address};
use super::pod::Served;
use crate::authorize::{Allowed, decide, let_in};
use crate::balance::Endpoint;
use crate::resolve::{Dialled, Target, resolve};
use crate::telemetry::{Layer, Outcome};
use trefoil_dataplane_state::state::{Guard, Service, Workload};

/// Why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    /// Another plane serves it.
    #[error("workload {0} is not served here")]
    NotServed(String),
    /// Served, but the control plane has not described it.
    #[error("workload {0} is not known here yet")]
    NotKnown(String),
    /// Not an identity.
    #[error("{0}")]
    Identity(#[from] trefoil_api::identity::NotAnIdentity),
    /// Too many connections were asked for.
    #[error("connections are made on request a few a second only: ask again")]
    Busy,
}

/// As the access log would say it.
pub(super) fn fault(failure: &Failure, plane: Layer, far: Option<Layer>) -> Fault {
    let Outcome {
        flag, layer, reason, ..
    } = failure.outcome(plane, far);
    Fault {
        layer: layer.unwrap_or(plane).as_str().into(),
        flag: flag.as_str().into(),
        reason,
    }
}

impl Proxy {
    /// The pod of a workload, and its workload. It is not waited for.
    pub(super) fn asked_about(&self, uid: &str) -> Result<(Arc<Served>, Arc<Workload>), NotAnswered> {
        let pod = self.served().into_iter().find(|pod| pod.workload_uid == uid);
        let pod = pod.ok_or_else(|| NotAnswered::NotServed(uid.into()))?;
        let workload = self.store.workload(uid);
        Ok((pod, workload.ok_or_else(|| NotAnswered::NotKnown(uid.into()))?))
    }

    /// What would become of a connection to a pod that is served here.
    pub fn evaluate(&self, question: &Arriving) -> Result<Evaluation, NotAnswered> {
        let (pod, server) = self.asked_about(&question.workload)?;
        let client = question.identity.as_deref().map(str::parse).transpose()?;
        let unread = pod.reads && may_be_requests(&server, question.destination.port());
        let asked = if unread { Asked::Unread } else { Asked::Bytes };
        let decided = admit(self, client.as_ref(), &server, question, asked);
        let mut evaluation = evaluation(decided, self.config.plane);
        if unread && evaluation.fault.is_none() {
            evaluation
                .reason
                .push_str(", as far as it can be told before a request is read");
        }
        Ok(evaluation)
    }

    /// Where a connection of a pod that is served here would be carried, and how.
    pub fn route(&self, question: &Leaving) -> Result<Route, NotAnswered> {
        let (pod, own) = self.asked_about(&question.workload)?;
        let mut route = Route {
            identity: pod.identity.to_string(),
            source: own.addresses.first().copied(),
            path: "none".into(),
            address: None,
            workload: None,
            service: None,
            next_hop: None,
            expected: Vec::new(),
            fault: None,
        };
        let destination = question.destination;
        let failure = match resolve(&self.store, &own, destination, &mut rand::rng()) {
            Target::Passthrough(address) => {
                route.address = Some(address);
                return Ok(route);
            }
            Target::Workload {
                workload,
                address,
                service,
            } => {
                let to = Endpoint { workload, address };
                self.towards(&own, &to, service.as_deref(), &mut route);
                return Ok(route);
            }
            Target::Waypoint { first, dialled, .. } => {
                self::dialled(&mut route, &dialled);
                through(&mut route, &first, None);
                return Ok(route);
            }
            Target::NoWaypoint { waypoint, dialled } => {
                self::dialled(&mut route, &dialled);
                Failure::NoWaypoint(waypoint)
            }
            Target::NoEndpoint { service } => {
                route.service = Some(service.hostname.clone());
                Failure::NoEndpoint(service.hostname.clone())
            }
            Target::Refused => refused_address(self, destination),
        };
        route.fault = Some(fault(&failure, self.config.plane, None));
        Ok(route)
    }

    fn towards(&self, own: &Workload, to: &Endpoint, service: Option<&Service>, route: &mut Route) {
        route.address = Some(to.address);
        route.workload = Some(to.workload.uid.clone());
        route.service = service.map(|service| service.hostname.clone());
        match hop(self, own, to) {
            Hop::Plain => {}
            Hop::SameNode(_) => route.path = "same_node".into(),
            Hop::Tunnel(_) => through(route, to, service),
        }
    }
}

/// What was dialled, which a waypoint serves.
fn dialled(route: &mut Route, dialled: &Dialled) {
    route.address = Some(dialled.address);
    route.workload = dialled.workload.as_ref().map(|workload| workload.uid.clone());
    route.service = dialled.service.as_ref().map(|service| service.hostname.clone());
}

fn through(route: &mut Route, hop: &Endpoint, service: Option<&Service>) {
    route.path = "mutual_tls".into();
    route.next_hop = Some(hop.plane());
    route.expected = hop.expected(service).iter().map(ToString::to_string).collect();
}

/// The checks of a real arrival, in their order.
fn admit(
    proxy: &Proxy,
    client: Option<&Identity>,
    server: &Workload,
    question: &Arriving,
    asked: Asked<'_>,
) -> Result<Allowed, Failure> {
    let destination: SocketAddr = question.destination;
    placed(server, destination)?;
    if client.is_some() {
        let_in(&proxy.store, client, server, question.source, destination.port())?;
    }
    if let Some(Guard::Waypoint { identity, .. }) = &server.guard {
        return Ok(Allowed::by_guard(identity));
    }
    let ends = (question.source, destination);
    Ok(decide(&proxy.store, client, server, ends, asked)?)
}

/// Whether a destination is the pod's own, and not its plane's.
pub(super) fn placed(server: &Workload, destination: SocketAddr) -> Result<(), Failure> {
    if port::RESERVED.contains(&destination.port()) {
        return Err(Failure::Loop(destination));
    }
    if !server.addresses.contains(&destination.ip().to_canonical()) {
        return Err(Failure::WrongDestination(destination.to_string()));
    }
    Ok(())
}

fn evaluation(decided: Result<Allowed, Failure>, plane: Layer) -> Evaluation {
    match decided {
        Ok(Allowed { reason, audit }) => Evaluation {
            fault: None,
            policy: match &reason {
                Reason::Matched(policy) => Some(policy.clone()),
                _ => None,
            },
            reason: reason.to_string(),
            audit,
        },
        Err(failure) => Evaluation {
            policy: failure.outcome(plane, None).policy,
            reason: failure.to_string(),
            audit: Vec::new(),
            fault: Some(fault(&failure, plane, None)),
        },
    }
}
