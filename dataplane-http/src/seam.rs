//! Where the engine meets a plane: who is at the downstream end, and how bytes get to an endpoint. A plane opens,
//! the engine decides; an application is never opened without the proof that policy allows it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use trefoil_dataplane_core::Authorized;
use trefoil_dataplane_core::balance::{Endpoint, Vantage, vantages};
use trefoil_dataplane_core::forward::{Lease, Side, SideBytes};
use trefoil_dataplane_core::identify::Peer;
use trefoil_dataplane_core::proxy::Failure;
use trefoil_dataplane_core::telemetry::{Flag, Layer};
use trefoil_dataplane_state::state::{Locality, Protocol, Service, Workload};

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Who is at the downstream end of a connection, and what was dialled.
#[derive(Clone, Debug)]
pub struct Downstream {
    /// Who, as far as it is proven.
    pub peer: Peer,
    /// The client's address.
    pub source: SocketAddr,
    /// The client's workload, where it is known.
    pub client: Option<Arc<Workload>>,
    /// Where the client says that it is; empty where it does not.
    pub said: Locality,
    /// This plane's own workload.
    pub own: Arc<Workload>,
    /// What was dialled.
    pub destination: SocketAddr,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
    /// What was dialled is an endpoint: it gets policy, and is never routed or balanced anew.
    pub endpoint: Option<Endpoint>,
}

impl Downstream {
    /// What the dialled port is declared to speak.
    #[must_use]
    pub fn declared(&self) -> Protocol {
        if let Some(endpoint) = &self.endpoint {
            return endpoint.workload.declared(endpoint.address.port());
        }
        let service = self.service.as_ref();
        service
            .and_then(|service| service.declared(self.destination.port()))
            .unwrap_or(Protocol::Unknown)
    }

    /// From where endpoints are chosen.
    pub(crate) fn vantages(&self) -> [Vantage<'_>; 2] {
        vantages(self.client.as_deref(), &self.said, &self.own)
    }

    /// Whose upstream connections these may be: never another's.
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            identity: self.peer.identity().map(ToString::to_string),
            path: self.peer.path(),
            source: self.source.ip(),
        }
    }
}

/// Who may use an upstream connection. The address is part of it, since policy at the server may ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    identity: Option<String>,
    path: &'static str,
    source: IpAddr,
}

/// An endpoint that was chosen, and for which service.
#[derive(Clone, Debug)]
pub struct Server {
    /// The workload, its address and the port that it listens on.
    pub endpoint: Endpoint,
    /// The service that it was chosen for, if any.
    pub service: Option<Arc<Service>>,
}

/// Why no bytes could be carried to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct OpenFailure {
    /// For people.
    pub reason: String,
    /// Whose fault it is.
    pub layer: Layer,
    /// As telemetry names it.
    pub flag: Flag,
}

impl OpenFailure {
    /// Of a `plane` that connects to applications, where nothing was decided.
    #[must_use]
    pub fn undecided(plane: Layer) -> Self {
        Self {
            reason: "nothing was decided about the request".into(),
            layer: plane,
            flag: Flag::Deny,
        }
    }

    /// As `plane` sees it.
    #[must_use]
    pub fn of(failure: &Failure, plane: Layer, to: &Server) -> Self {
        let outcome = failure.outcome(plane, to.endpoint.workload.plane());
        Self {
            reason: outcome.reason,
            layer: outcome.layer.unwrap_or(plane),
            flag: outcome.flag,
        }
    }
}

/// What allows a request to be sent to an endpoint.
#[derive(Clone, Debug)]
pub enum Permit {
    /// Policy, which was decided here.
    Authorized(Authorized),
    /// Nothing was decided, at the client's end: the endpoint's plane decides, where it has one. No application of
    /// the mesh is connected to by it.
    Undecided,
}

/// A connection to an endpoint.
pub struct Opened {
    /// Its bytes.
    pub io: Box<dyn Io>,
    /// The tunnel that it is a stream of: nothing new is begun on it once that is to be left.
    pub tunnel: Option<Arc<dyn Lease>>,
}

impl From<Side> for Opened {
    fn from(side: Side) -> Self {
        let bytes = SideBytes::from(side);
        Self {
            tunnel: bytes.lease(),
            io: Box::new(bytes),
        }
    }
}

/// How a plane reaches an endpoint.
pub trait Carrier: Send + Sync + 'static {
    /// A connection to the endpoint, which `permit` allows `downstream` to reach.
    fn open<'a>(
        &'a self,
        to: &'a Server,
        permit: &'a Permit,
        downstream: &'a Downstream,
    ) -> BoxFuture<'a, Result<Opened, OpenFailure>>;
}
