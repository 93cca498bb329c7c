//! Who asks for what: the client is whoever has proved to be it, or whom a workload hands over that this waypoint
//! guards, for itself alone. Nobody else's word is taken, and nothing is decided or chosen here.

use std::net::SocketAddr;
use std::sync::Arc;

use trefoil_dataplane_core::hbone::Incoming;
use trefoil_dataplane_core::identify::{Peer, hands_over};
use trefoil_dataplane_core::proxy::{Failure, Home};
use trefoil_dataplane_core::state::{Locality, Workload};
use trefoil_dataplane_core::telemetry::{Party, Record};
use trefoil_dataplane_http::Downstream;

use crate::target::{Target, target};

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The client, as far as it is proven.
    pub(crate) peer: Peer,
    /// Its address.
    pub(crate) source: SocketAddr,
    /// The same, as telemetry names it.
    pub(crate) client: Party,
    /// Where it says that it is.
    pub(crate) said: Locality,
    /// The waypoint's own workload.
    pub(crate) own: Arc<Workload>,
    /// What it asks for.
    pub(crate) target: Target,
}

/// Understands a request of a tunnel's other end, `peer` at `source`.
pub(crate) async fn arrival(
    home: &Home,
    incoming: &Incoming,
    peer: Peer,
    source: SocketAddr,
) -> Result<Arrival, Failure> {
    let asked = incoming.asked()?;
    let own = home.workload().await?;
    let target = target(&home.store().snapshot(), &own, &asked.destination)?;
    let believed = match &target {
        Target::Workload(endpoint) => hands_over(&peer, source.ip(), &endpoint.workload, &own),
        Target::Service { .. } => false,
    };
    let heard = peer.heard(asked.claim, believed)?;
    if heard.stripped {
        home.stripped_peer();
    }
    let source = match &heard.peer {
        Peer::Forwarded { .. } => asked.source.unwrap_or(source),
        _ => source,
    };
    Ok(Arrival {
        client: home.client(&heard.peer, source),
        peer: heard.peer,
        source,
        said: asked.locality,
        own,
        target,
    })
}

impl Arrival {
    /// As the engine of HTTP sees it.
    pub(crate) fn downstream(self) -> Downstream {
        let (destination, service, endpoint) = match self.target {
            Target::Service { service, address } => (address, Some(service), None),
            Target::Workload(endpoint) => (endpoint.address, None, Some(endpoint)),
        };
        Downstream {
            peer: self.peer,
            source: self.source,
            client: self.client.workload,
            said: self.said,
            own: self.own,
            destination,
            service,
            endpoint,
        }
    }

    /// Its record, if it is carried as bytes.
    pub(crate) fn record(&self, home: &Home) -> Record {
        let mut record = home.record(self.source);
        record.path = self.peer.path();
        record.source = self.client.clone();
        match &self.target {
            Target::Service { service, address } => {
                record.destination_address = Some(*address);
                record.service = Some(service.clone());
            }
            Target::Workload(endpoint) => record.destination_address = Some(endpoint.address),
        }
        record
    }
}
