//! What a pod dials: resolved, and carried by the way that leads there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::connections::{Direction, Tracked};
use super::failure::Failure;
use super::home::Home;
use super::inbound::{Arrival, Reached, close, fail, reach};
use super::pod::Served;
use super::requests::Reader;
use super::{Proxy, requests, waypoint};
use crate::balance::Endpoint;
use crate::forward::{Begun, Side, forward};
use crate::hbone::{OpenError, Opening, baggage};
use crate::identify::Peer;
use crate::resolve::{Dialled, Target, resolve};
use crate::sockets;
use crate::telemetry::{Record, Reporter};
use trefoil_dataplane_state::state::{Guard, Service, Tunnel, Workload};

/// How long what is known here may be behind what a waypoint knows: one that is made or removed is heard of by all
/// planes, by one after the other.
const BEHIND: Duration = Duration::from_millis(500);

/// The way to a server, open.
pub(super) enum Way {
    /// A socket, or a stream of a tunnel.
    Open(Side),
    /// The application itself, of a pod that is served here too, or its waypoint.
    SameNode(Box<Reached>, OwnedSemaphorePermit),
}

/// Serves a connection that the pod made, whose requests `reader` reads.
pub(super) async fn serve(
    proxy: Arc<Proxy>,
    pod: Arc<Served>,
    reader: Reader,
    client: TcpStream,
    source: SocketAddr,
) {
    let destination = match captured(&pod, &client) {
        Ok(destination) => destination,
        Err(failure) => {
            fail(&proxy, record(&proxy, &pod, source), failure);
            return sockets::reset(client);
        }
    };
    let (client, ends) = (Side::Tcp(client), (source, destination));
    if let Some(reader) = reader {
        let home = Home::new(proxy.clone(), pod.clone());
        if let Some(readable) = requests::dialled(home, reader.clone(), ends).await {
            return reader.serve(readable(client)).await;
        }
    }
    dial(&proxy, &pod, client, ends).await;
}

fn record(proxy: &Proxy, pod: &Served, source: SocketAddr) -> Record {
    let mut record = Record::new(&proxy.metrics, Reporter::Source, source);
    record.source.identity = Some(pod.identity.clone());
    record
}

/// Carries bytes of the pod to what it dialled.
pub(super) async fn dial(
    proxy: &Proxy,
    pod: &Served,
    client: impl Into<Begun>,
    (source, destination): (SocketAddr, SocketAddr),
) {
    let connected = Box::pin(async {
        let mut record = record(proxy, pod, source);
        match connect(proxy, pod, destination, &mut record).await {
            Ok((way, tracked)) => Ok((way, tracked, record)),
            Err(failure) => Err(fail(proxy, record, failure)),
        }
    });
    let mut client: Begun = client.into();
    match connected.await {
        Ok((way, tracked, record)) => carry(proxy, client, way, tracked, record).await,
        Err(_) => client.side.reset(),
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
    let mut changes = proxy.store.changes();
    let way = match find(proxy, pod, &own, destination, record).await {
        Err(failure) if failure.may_be_out_of_date() => {
            // Nothing was said to anybody yet: what is known from now on may lead elsewhere.
            if timeout(BEHIND, changes.changed()).await.is_err() {
                return Err(failure);
            }
            (record.path, record.tunnel_address) = ("none", None);
            find(proxy, pod, &own, destination, record).await?
        }
        found => found?,
    };
    Ok((way, tracked))
}

/// The way to what was dialled, open.
async fn find(
    proxy: &Proxy,
    pod: &Served,
    own: &Arc<Workload>,
    destination: SocketAddr,
    record: &mut Record,
) -> Result<Way, Failure> {
    let target = resolve(&proxy.store, own, destination, &mut rand::rng());
    Ok(match target {
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
            towards(proxy, pod, own, Endpoint { workload, address }, record).await?
        }
        Target::Waypoint {
            waypoint,
            first,
            dialled,
        } => {
            record.dialled(&dialled);
            let side = by_waypoint(proxy, pod, own, (&waypoint, first), &dialled, record);
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
    })
}

/// By the waypoint that serves what was dialled. That is all that it is told: it chooses, and decides.
async fn by_waypoint(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    (service, first): (&str, Endpoint),
    dialled: &Dialled,
    record: &mut Record,
) -> Result<Side, OpenError> {
    record.path = "mutual_tls";
    let ends = (record.source_address, dialled.address);
    let opening = opening(own, ends, None, dialled.service.as_deref());
    let to = waypoint::To {
        service,
        first,
        expected: None,
    };
    waypoint::open(proxy, pod, own, to, &opening, &mut record.tunnel_address).await
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
            record.path = "mutual_tls";
            record.tunnel_address = Some(plane);
            let service = record.service.as_deref();
            let side = tunnel(proxy, pod, own, &to, service, record.source_address).await?;
            Ok(Way::Open(side))
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

/// A stream of a tunnel to the plane of an endpoint that was chosen for `service`.
async fn tunnel(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    to: &Endpoint,
    service: Option<&Service>,
    source: SocketAddr,
) -> Result<Side, OpenError> {
    let uid = Some(to.workload.uid.as_str());
    let opening = opening(own, (source, to.address), uid, service);
    let expected = to.expected(service);
    let stream = pod.open(proxy, to.plane(), &expected, &opening).await?;
    Ok(Side::Tunnel(stream))
}

/// What a plane is asked for, for the pod whose workload is `own`.
fn opening<'a>(
    own: &Workload,
    (source, destination): (SocketAddr, SocketAddr),
    destination_uid: Option<&'a str>,
    service: Option<&'a Service>,
) -> Opening<'a> {
    Opening {
        destination,
        destination_uid,
        source,
        service: service.map(|service| service.hostname.as_str()),
        baggage: Some(baggage(own)),
        claim: None,
    }
}

/// The way of one who reads the pod's requests to an endpoint that it has chosen for `service`: as any connection
/// of the pod goes, and where the endpoint has a guard by that, which decides and does not choose again.
pub(super) async fn onward(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    to: &Endpoint,
    service: Option<&Service>,
    source: SocketAddr,
) -> Result<Side, Failure> {
    // A workload dialling itself is never tunnelled.
    if to.workload.tunnel == Tunnel::None || to.workload.uid == own.uid {
        return plain(pod, to.address).await;
    }
    let Some(Guard::Waypoint {
        identity,
        service: waypoint,
    }) = &to.workload.guard
    else {
        return Ok(tunnel(proxy, pod, own, to, service, source).await?);
    };
    let opening = opening(own, (source, to.address), None, service);
    waypoint::open_guard(proxy, pod, own, (identity, waypoint), &opening, &mut None).await
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
    Ok(Way::Open(plain(pod, address).await?))
}

async fn plain(pod: &Served, address: SocketAddr) -> Result<Side, Failure> {
    Ok(Side::Tcp(sockets::connect(&*pod.dialer, address, None).await?))
}

/// Carries a connection to its end. On the same node both ends are reported here, and the server's end may
/// be cut.
async fn carry(proxy: &Proxy, client: Begun, way: Way, tracked: Tracked, mut record: Record) {
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
