//! Who asks for what: the client is whoever has proved to be it, or whom a workload hands over that this waypoint
//! guards, for itself alone. Nobody else's word is taken, and nothing is decided or chosen here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use trefoil_dataplane_core::hbone::{Destination, Incoming};
use trefoil_dataplane_core::identify::{Peer, hands_over};
use trefoil_dataplane_core::proxy::{Failure, Home};
use trefoil_dataplane_core::telemetry::{Party, Record};
use trefoil_dataplane_http::Downstream;
use trefoil_dataplane_state::state::{Locality, Workload};

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
    let target = until_served(home, &own, &asked.destination).await?;
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

/// How long a client may have heard before this plane does that it serves what it is asked for.
const BEHIND: Duration = Duration::from_millis(500);

/// What is asked for, once that is known to be served here.
async fn until_served(home: &Home, own: &Workload, asked: &Destination) -> Result<Target, Failure> {
    let mut changes = home.store().changes();
    let until = Instant::now() + BEHIND;
    loop {
        let found = target(&home.store().snapshot(), own, asked);
        if found.is_ok() || !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
            return found;
        }
    }
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
