//! One stream of a tunnel to the waypoint: accept, identify, decide, connect, forward, report. The client is
//! whoever has proved to be it, or whom a workload hands over that this waypoint guards; nobody else's word is
//! taken, and policy of the endpoint is enforced here, whole.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use trefoil_dataplane_core::authorize;
use trefoil_dataplane_core::balance::{Endpoint, choose, vantages};
use trefoil_dataplane_core::forward::{Side, TunnelStream};
use trefoil_dataplane_core::hbone::{Asked, Incoming, Opening, baggage};
use trefoil_dataplane_core::identify::{Peer, hands_over};
use trefoil_dataplane_core::proxy::{Failure, Home, Reached, Stream, Streams, Tracked};
use trefoil_dataplane_core::state::{Locality, Service, Tunnel, Workload};
use trefoil_dataplane_core::telemetry::Record;

use crate::target::{Target, target};

/// What becomes of the streams of tunnels to a waypoint.
#[must_use]
pub fn streams() -> Streams {
    Arc::new(|stream| Box::pin(serve(stream)))
}

/// Serves one stream to its end. What it takes to get there is given up before the connection is carried, which
/// may be idle for long.
fn serve(stream: Stream) -> impl Future<Output = ()> {
    let admitted = Box::pin(admit(stream));
    async move {
        if let Some((home, _permit, client, reached)) = admitted.await {
            home.carry(Side::Tunnel(client), reached).await;
        }
    }
}

type Admitted = (Home, OwnedSemaphorePermit, TunnelStream, Reached);

/// Decides about a stream and answers it.
async fn admit(stream: Stream) -> Option<Admitted> {
    let Stream {
        home,
        incoming,
        peer,
        source,
    } = stream;
    let mut record = home.record(source);
    let reached = async {
        let permit = home.room()?;
        let (server, tracked) = reach(&home, &incoming, peer, &mut record).await?;
        Ok((permit, server, tracked))
    };
    match reached.await {
        Ok((permit, server, tracked)) => match incoming.accept() {
            Ok(stream) => {
                let reached = Reached {
                    server,
                    record,
                    tracked,
                };
                Some((home, permit, stream, reached))
            }
            Err(error) => {
                home.fail(record, error.into());
                None
            }
        },
        Err(failure) => {
            incoming.refuse(home.fail(record, failure).status());
            None
        }
    }
}

/// Identifies the client, chooses the endpoint, decides, and connects.
async fn reach(
    home: &Home,
    incoming: &Incoming,
    peer: Peer,
    record: &mut Record,
) -> Result<(Side, Tracked), Failure> {
    let asked = incoming.asked()?;
    let own = home.workload().await?;
    let target = target(&home.store().snapshot(), &own, &asked.destination)?;
    let peer = identify(home, peer, &asked, &target, &own, record)?;
    let (endpoint, service) = endpoint(home, &target, &asked.locality, &own, record)?;
    connect(home, peer, endpoint, service, record).await
}

/// Who the client is, and where it is from.
fn identify(
    home: &Home,
    peer: Peer,
    asked: &Asked,
    target: &Target,
    own: &Workload,
    record: &mut Record,
) -> Result<Peer, Failure> {
    let believed = match target {
        Target::Workload { workload, .. } => hands_over(&peer, record.source_address.ip(), workload, own),
        Target::Service { .. } => false,
    };
    let heard = peer.heard(asked.claim.clone(), believed)?;
    if heard.stripped {
        home.stripped_peer();
    }
    if let (Peer::Forwarded { .. }, Some(source)) = (&heard.peer, asked.source) {
        record.source_address = source;
    }
    record.path = heard.peer.path();
    record.source = home.client(&heard.peer, record.source_address);
    Ok(heard.peer)
}

/// The endpoint: the one that was dialled, or one of the service's, near to the client and else to us.
fn endpoint(
    home: &Home,
    target: &Target,
    said: &Locality,
    own: &Workload,
    record: &mut Record,
) -> Result<(Endpoint, Option<Arc<Service>>), Failure> {
    match target {
        Target::Workload { workload, address } => {
            let (workload, address) = (workload.clone(), *address);
            Ok((Endpoint { workload, address }, None))
        }
        Target::Service { service, address } => {
            record.destination_address = Some(*address);
            record.service = Some(service.clone());
            let client = record.source.workload.as_deref();
            let from = vantages(client, said, own);
            let known = home.store().snapshot();
            let chosen = choose(&known, service, &from, *address, &mut rand::rng());
            let chosen = chosen.ok_or_else(|| Failure::NoEndpoint(service.hostname.clone()))?;
            Ok((chosen, Some(service.clone())))
        }
    }
}

/// Decides about the client and the endpoint, and connects if it is allowed.
async fn connect(
    home: &Home,
    peer: Peer,
    endpoint: Endpoint,
    service: Option<Arc<Service>>,
    record: &mut Record,
) -> Result<(Side, Tracked), Failure> {
    let (source, destination) = (record.source_address, endpoint.address);
    record.destination_address = Some(destination);
    // Registered before anything is read that decides: what changes between the two finds the connection.
    let uid = &endpoint.workload.uid;
    let mut tracked = home.track(uid, source, destination, peer.clone());
    let gone = || Failure::WrongDestination(destination.to_string());
    let server = home.store().workload(uid).ok_or_else(gone)?;
    if !server.addresses.contains(&destination.ip()) {
        return Err(gone());
    }
    record.destination.workload = Some(server.clone());
    let endpoint = Endpoint {
        workload: server,
        address: destination,
    };
    if endpoint.workload.tunnel == Tunnel::Hbone {
        record.destination.identity = Some(endpoint.workload.identity.clone());
        record.tunnel_address = Some(endpoint.plane());
    }
    let (client, server) = (source.ip(), &endpoint.workload);
    let authorized = authorize(home.store(), &peer, server, client, destination, None)?;
    record.allowed(&authorized);
    let opening = Opening {
        destination,
        destination_uid: Some(&server.uid),
        source,
        service: service.as_ref().map(|service| service.hostname.as_str()),
        baggage: record.source.workload.as_deref().map(baggage),
        claim: Some(peer.claim()),
    };
    let connecting = home.connect(&endpoint, service.as_deref(), &authorized, &opening);
    Ok((tracked.unless_cut(connecting).await?, tracked))
}
