//! What a pod dials: resolved, and carried by the way that leads there.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use trefoil_api::Identity;

use super::connections::{Direction, Tracked};
use super::failure::Failure;
use super::inbound::{Arrival, Reached, close, fail, reach};
use super::pod::Served;
use super::{Proxy, waypoint};
use crate::balance::Endpoint;
use crate::forward::{Side, forward};
use crate::hbone::{OpenError, Opening, baggage};
use crate::identify::Peer;
use crate::resolve::{Dialled, Target, resolve};
use crate::sockets;
use crate::state::{Tunnel, Workload};
use crate::telemetry::{Record, Reporter};

/// The way to a server, open.
pub(super) enum Way {
    /// A socket, or a stream of a tunnel.
    Open(Side),
    /// The application itself, of a pod that is served here too, or its waypoint.
    SameNode(Box<Reached>, OwnedSemaphorePermit),
}

/// Serves a connection that the pod made.
pub(super) async fn serve(proxy: Arc<Proxy>, pod: Arc<Served>, client: TcpStream, source: SocketAddr) {
    let connected = Box::pin(async {
        let mut record = Record::new(&proxy.metrics, Reporter::Source, source);
        record.source.identity = Some(pod.identity.clone());
        let connected = match captured(&pod, &client) {
            Ok(destination) => connect(&proxy, &pod, destination, &mut record).await,
            Err(failure) => Err(failure),
        };
        match connected {
            Ok((way, tracked)) => Ok((way, tracked, record)),
            Err(failure) => Err(fail(&proxy, record, failure)),
        }
    });
    match connected.await {
        Ok((way, tracked, record)) => carry(&proxy, Side::Tcp(client), way, tracked, record).await,
        Err(_) => sockets::reset(client),
    }
}

/// Where a captured connection was going. What was not redirected here has no business here.
pub(super) fn captured(pod: &Served, client: &TcpStream) -> Result<SocketAddr, Failure> {
    let destination = pod
        .dialer
        .original_destination(client)
        .map_err(Failure::OriginalDestination)?;
    let local = client.local_addr().map_err(Failure::OriginalDestination)?;
    if destination == sockets::canonical(local) {
        return Err(Failure::Loop(destination));
    }
    Ok(destination)
}

/// Connects the pod to what it dialled.
pub(super) async fn connect(
    proxy: &Proxy,
    pod: &Served,
    destination: SocketAddr,
    record: &mut Record,
) -> Result<(Way, Tracked), Failure> {
    let source = record.source_address;
    record.destination_address = Some(destination);
    let own = pod.workload(proxy).await?;
    record.source.workload = Some(own.clone());
    let of = (Direction::Outbound, "");
    let ends = (source, destination);
    let tracked = proxy.connections.track(&pod.uid, of, ends, Peer::Unauthenticated);
    let target = resolve(&proxy.store, &own, destination, &mut rand::rng());
    let way = match target {
        Target::Passthrough(address) => direct(pod, address).await?,
        Target::Workload {
            workload,
            address,
            service,
        } => {
            record.destination_address = Some(address);
            record.destination.identity = Some(workload.identity.clone());
            record.destination.workload = Some(workload.clone());
            record.service.clone_from(&service);
            towards(proxy, pod, &own, Endpoint { workload, address }, record).await?
        }
        Target::Waypoint { waypoint, dialled } => {
            record.dialled(&dialled);
            let side = by_waypoint(proxy, pod, &own, waypoint, &dialled, record);
            Way::Open(side.await.map_err(Failure::Waypoint)?)
        }
        Target::NoWaypoint { waypoint, dialled } => {
            record.dialled(&dialled);
            return Err(Failure::NoWaypoint(waypoint));
        }
        Target::NoEndpoint { service } => {
            record.service = Some(service.clone());
            return Err(Failure::NoEndpoint(service.hostname.clone()));
        }
        Target::Refused => return Err(refused_address(proxy, destination)),
    };
    Ok((way, tracked))
}

/// By the waypoint that serves what was dialled. That is all that it is told: it chooses, and decides.
async fn by_waypoint(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    first: Endpoint,
    dialled: &Dialled,
    record: &mut Record,
) -> Result<Side, OpenError> {
    record.path = "mutual_tls";
    let opening = Opening {
        destination: dialled.address,
        destination_uid: None,
        source: record.source_address,
        service: dialled.service.as_ref().map(|service| service.hostname.as_str()),
        baggage: Some(baggage(own)),
        claim: None,
    };
    let to = waypoint::To {
        service: dialled.waypoint().unwrap_or_default(),
        first,
        expected: None,
    };
    waypoint::open(proxy, pod, own, to, &opening, record).await
}

/// Why an address is refused.
pub(super) fn refused_address(proxy: &Proxy, destination: SocketAddr) -> Failure {
    if proxy.store.snapshot().is_unread(destination.ip()) {
        return Failure::NotUnderstood(destination);
    }
    Failure::NotRegistered(destination)
}

/// How an endpoint is reached.
pub(super) enum Hop {
    /// As it is: it is outside the mesh.
    Plain,
    /// From socket to socket.
    SameNode(Arc<Served>),
    /// Through the plane at an address.
    Tunnel(SocketAddr),
}

/// How the pod whose workload is `own` reaches an endpoint.
pub(super) fn hop(proxy: &Proxy, own: &Workload, to: &Endpoint) -> Hop {
    if to.workload.tunnel == Tunnel::None {
        return Hop::Plain;
    }
    match proxy.same_node(own, &to.workload) {
        Some(server) => Hop::SameNode(server),
        None => Hop::Tunnel(to.plane()),
    }
}

async fn towards(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    to: Endpoint,
    record: &mut Record,
) -> Result<Way, Failure> {
    match hop(proxy, own, &to) {
        Hop::Plain => {
            // Whoever is outside the mesh has proved nothing.
            record.destination.identity = None;
            direct(pod, to.address).await
        }
        Hop::SameNode(server) => {
            record.path = "same_node";
            same_node(proxy, pod, &server, to, record).await
        }
        Hop::Tunnel(plane) => {
            let expected = to.expected(record.service.as_deref());
            let uid = Some(to.workload.uid.as_str());
            let through = (plane, expected.as_slice());
            Ok(tunnel(proxy, pod, own, through, (to.address, uid), record).await?)
        }
    }
}

async fn same_node(
    proxy: &Proxy,
    pod: &Served,
    server: &Served,
    to: Endpoint,
    record: &Record,
) -> Result<Way, Failure> {
    let source = record.source_address;
    let inbound = Record::new(&proxy.metrics, Reporter::Destination, source);
    let arrival = Arrival {
        peer: Peer::same_node(pod.identity.clone()),
        source,
        destination: to.address,
        service: record.service.clone(),
    };
    let permit = match server.room(proxy) {
        Ok(permit) => permit,
        Err(failure) => return Err(refused(proxy, server, inbound, &arrival, failure)),
    };
    let reached = reach(proxy, server, inbound, arrival).await?;
    Ok(Way::SameNode(Box::new(reached), permit))
}

/// A stream of a tunnel to the plane there, for `destination`.
async fn tunnel(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    (plane, expected): (SocketAddr, &[Identity]),
    (destination, destination_uid): (SocketAddr, Option<&str>),
    record: &mut Record,
) -> Result<Way, OpenError> {
    record.path = "mutual_tls";
    record.tunnel_address = Some(plane);
    let opening = Opening {
        destination,
        destination_uid,
        source: record.source_address,
        service: record.service.as_ref().map(|service| service.hostname.as_str()),
        baggage: Some(baggage(own)),
        claim: None,
    };
    let stream = pod.open(proxy, plane, expected, &opening).await?;
    Ok(Way::Open(Side::Tunnel(stream)))
}

/// A connection for which the server's pod has no room leaves its line at the server's end too.
fn refused(
    proxy: &Proxy,
    server: &Served,
    mut record: Record,
    arrival: &Arrival,
    failure: Failure,
) -> Failure {
    record.path = arrival.peer.path();
    record.source.identity = arrival.peer.identity().cloned();
    record.destination_address = Some(arrival.destination);
    record.destination.identity = Some(server.identity.clone());
    fail(proxy, record, failure)
}

async fn direct(pod: &Served, address: SocketAddr) -> Result<Way, Failure> {
    let stream = sockets::connect(&*pod.dialer, address, None).await?;
    Ok(Way::Open(Side::Tcp(stream)))
}

/// Carries a connection to its end. On the same node both ends are reported here, and the server's end may
/// be cut.
async fn carry(proxy: &Proxy, client: Side, way: Way, tracked: Tracked, mut record: Record) {
    let counters = tracked.counters().clone();
    record.opened(&counters);
    let result = match way {
        Way::Open(server) => forward(client, server, &counters).await.map_err(Failure::from),
        Way::SameNode(reached, _permit) => {
            let Reached {
                server,
                record: mut at_server,
                tracked: mut decided,
            } = *reached;
            at_server.opened(&counters);
            let result = tokio::select! {
                result = forward(client, server, &counters) => result.map_err(Failure::from),
                denied = decided.cut() => Err(denied.into()),
            };
            close(proxy, &mut at_server, &result);
            result
        }
    };
    close(proxy, &mut record, &result);
}
