//! Where the engine meets a plane: who is at the downstream end, and how bytes get to an endpoint. A plane opens,
//! the engine decides; an endpoint is never opened without the proof that policy allows it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use trefoil_dataplane_core::Authorized;
use trefoil_dataplane_core::balance::{Endpoint, Vantage, vantages};
use trefoil_dataplane_core::identify::Peer;
use trefoil_dataplane_core::state::{Locality, Service, Workload};
use trefoil_dataplane_core::telemetry::{Flag, Layer};

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

/// How a plane reaches an endpoint.
pub trait Carrier: Send + Sync + 'static {
    /// Bytes to the application, which `authorized` allows `downstream` to reach.
    fn open<'a>(
        &'a self,
        to: &'a Server,
        authorized: &'a Authorized,
        downstream: &'a Downstream,
    ) -> BoxFuture<'a, Result<Box<dyn Io>, OpenFailure>>;
}
