//! What arrives for a pod. However it came, it is decided here, and here alone an application is connected
//! to; what has skipped the pod's waypoint is handed to that, which decides.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use trefoil_api::Identity;
use trefoil_api::policy::Asked;

use super::connections::{DecidedBy, Direction, Tracked};
use super::evaluate::placed;
use super::failure::Failure;
use super::home::Home;
use super::outbound::captured;
use super::pod::Served;
use super::requests::{Reader, Unread};
use super::{Proxy, waypoint};
use crate::authorize::{Authorized, authorize};
use crate::forward::{Begun, Side, forward};
use crate::guard::{Course, course};
use crate::hbone::{Opening, baggage};
use crate::identify::Peer;
use crate::sockets;
use crate::telemetry::{Layer, Party, Record};
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::{Guard, Service, Workload};

/// A connection to decide.
pub(super) struct Arrival {
    pub(super) peer: Peer,
    /// The client's address.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The service that was dialled, where that is known.
    pub(super) service: Option<Arc<Service>>,
}

/// A connection that may be carried.
pub struct Reached {
    /// The application, or the next hop.
    pub server: Side,
    /// What is reported of it.
    pub record: Record,
    /// Its registration.
    pub tracked: Tracked,
}

/// What was found for a connection that may be carried.
pub(super) enum Found {
    /// Its application, or the next hop.
    Server(Reached),
    /// Requests, each of which is decided about when it is read.
    Requests(Unread),
}

impl Found {
    /// Puts on record that the client was lost.
    pub(super) fn fail(self, proxy: &Proxy, failure: Failure) {
        let record = match self {
            Self::Server(reached) => reached.record,
            Self::Requests(unread) => unread.record,
        };
        fail(proxy, record, failure);
    }
}

/// Serves a connection that came as plaintext.
pub(super) async fn serve(
    proxy: Arc<Proxy>,
    pod: Arc<Served>,
    reader: Reader,
    client: TcpStream,
    source: SocketAddr,
) {
    let found = Box::pin(async {
        let record = proxy.record(source);
        let destination = match captured(&pod, &client) {
            Ok(destination) => destination,
            Err(failure) => return Err(fail(&proxy, record, failure)),
        };
        let arrival = Arrival {
            peer: Peer::Unauthenticated,
            source,
            destination,
            service: None,
        };
        find(&proxy, &pod, record, arrival, reader).await
    });
    match found.await {
        Ok(Found::Server(reached)) => carry(&proxy, Side::Tcp(client), reached).await,
        Ok(Found::Requests(unread)) => unread.serve(Side::Tcp(client), Home::new(proxy, pod)).await,
        Err(_) => sockets::reset(client),
    }
}

/// Decides about a connection and, if it is allowed, connects to its application; where `reader` may read requests
/// on it, it decides as far as that can be without them. A failure is on record.
pub(super) async fn find(
    proxy: &Proxy,
    pod: &Served,
    mut record: Record,
    arrival: Arrival,
    reader: Reader,
) -> Result<Found, Failure> {
    let Some(reader) = reader else {
        return Ok(Found::Server(reach(proxy, pod, record, arrival).await?));
    };
    let found = async {
        let registered = register(proxy, pod, &mut record, &arrival).await?;
        let (server, destination) = (&registered.server, arrival.destination);
        if !may_be_requests(server, destination.port()) {
            return Ok(Err(connect(proxy, pod, &mut record, &arrival, registered).await?));
        }
        registered.tracked.decided_by(DecidedBy::Reader);
        let (peer, source) = (&arrival.peer, arrival.source.ip());
        authorize(&proxy.store, peer, server, source, destination, Asked::Unread)?;
        Ok(Ok(registered))
    };
    match found.await {
        Ok(Ok(Registered { tracked, server })) => Ok(Found::Requests(Unread {
            reader,
            arrival,
            server,
            record,
            tracked,
        })),
        Ok(Err((server, tracked))) => Ok(Found::Server(Reached {
            server,
            record,
            tracked,
        })),
        Err(failure) => Err(fail(proxy, record, failure)),
    }
}

/// Decides about a connection that is bytes and, if it is allowed, connects to its application. A failure is on
/// record.
pub(super) async fn reach(
    proxy: &Proxy,
    pod: &Served,
    mut record: Record,
    arrival: Arrival,
) -> Result<Reached, Failure> {
    match try_reach(proxy, pod, &mut record, &arrival).await {
        Ok((server, tracked)) => Ok(Reached {
            server,
            record,
            tracked,
        }),
        Err(failure) => Err(fail(proxy, record, failure)),
    }
}

/// The same, on a record that is the caller's to end.
pub(super) async fn try_reach(
    proxy: &Proxy,
    pod: &Served,
    record: &mut Record,
    arrival: &Arrival,
) -> Result<(Side, Tracked), Failure> {
    let registered = register(proxy, pod, record, arrival).await?;
    connect(proxy, pod, record, arrival, registered).await
}

/// A connection that is registered: what changes from now on finds it.
struct Registered {
    tracked: Tracked,
    /// The pod's workload.
    server: Arc<Workload>,
}

/// Registers a connection, before anything is read that decides. That it is the pod's, however it came, is sure
/// afterwards.
async fn register(
    proxy: &Proxy,
    pod: &Served,
    record: &mut Record,
    arrival: &Arrival,
) -> Result<Registered, Failure> {
    let (source, destination) = (arrival.source, arrival.destination);
    record.source_address = source;
    record.destination_address = Some(destination);
    record.destination.identity = Some(pod.identity.clone());
    record.path = arrival.peer.path();
    record.source = client(&proxy.store, &arrival.peer, source);
    record.service.clone_from(&arrival.service);
    let of = (Direction::Inbound, pod.workload_uid.as_str());
    let ends = (source, destination);
    let tracked = proxy.connections.track(&pod.uid, of, ends, arrival.peer.clone());
    let server = pod.workload(proxy).await?;
    record.destination.workload = Some(server.clone());
    // Nobody is carried on to an address that is not the pod's.
    placed(&server, destination)?;
    Ok(Registered { tracked, server })
}

/// Whether requests may come that are for this plane to read: what is declared to be bytes is not, and neither is
/// what the pod's guard reads.
pub(super) fn may_be_requests(server: &Workload, port: u16) -> bool {
    let guarded = matches!(server.guard, Some(Guard::Waypoint { .. }));
    !guarded && server.declared(port).may_be_http()
}

/// Connects to the application, if policy allows it; or to the waypoint that was skipped.
async fn connect(
    proxy: &Proxy,
    pod: &Served,
    record: &mut Record,
    arrival: &Arrival,
    registered: Registered,
) -> Result<(Side, Tracked), Failure> {
    let Registered { mut tracked, server } = registered;
    let (peer, source) = (&arrival.peer, arrival.source);
    let side = match course(&server, peer) {
        Course::HandOver { identity, service } => {
            tracked.decided_by(DecidedBy::Waypoint);
            record.handed_to = Some(service.to_owned());
            let waypoint = hand_over(proxy, pod, record, &server, (identity, service), peer);
            tracked.unless_cut(Box::pin(waypoint)).await?
        }
        Course::Decide => {
            tracked.decided_by(DecidedBy::Plane);
            let asked = Asked::Bytes;
            let authorized = authorize(
                &proxy.store,
                peer,
                &server,
                source.ip(),
                arrival.destination,
                asked,
            )?;
            record.allowed(&authorized);
            let application = application(pod, &authorized, source);
            tracked.unless_cut(application).await?
        }
    };
    Ok((side, tracked))
}

/// A stream of a tunnel to the waypoint that guards the pod, as the pod, which says who its client is.
async fn hand_over(
    proxy: &Proxy,
    pod: &Served,
    record: &mut Record,
    own: &Workload,
    (identity, service): (&Identity, &str),
    peer: &Peer,
) -> Result<Side, Failure> {
    let destination = record.destination_address.unwrap_or(record.source_address);
    let dialled = record.service.clone();
    let source = record.source.workload.clone();
    let opening = Opening {
        destination,
        destination_uid: None,
        source: record.source_address,
        service: dialled.as_ref().map(|service| service.hostname.as_str()),
        baggage: source.as_deref().map(baggage),
        claim: Some(peer.claim()),
    };
    let tunnel = &mut record.tunnel_address;
    waypoint::open_guard(proxy, pod, own, (identity, service), &opening, tunnel).await
}

/// Connects to the application from within its namespace, as the client where that is possible.
pub(super) async fn application(
    pod: &Served,
    authorized: &Authorized,
    source: SocketAddr,
) -> Result<Side, sockets::ConnectError> {
    let connected = sockets::connect(&*pod.dialer, authorized.destination(), Some(source.ip()));
    Ok(Side::Tcp(connected.await?))
}

/// The client. Its address alone says nothing: only together with a proven identity it names a workload.
pub(super) fn client(store: &Store, peer: &Peer, source: SocketAddr) -> Party {
    let identity = peer.identity().cloned();
    let is_it = |workload: &Arc<Workload>| Some(&workload.identity) == identity.as_ref();
    Party {
        workload: store.workload_at(source.ip()).filter(is_it),
        identity,
    }
}

/// Carries an allowed connection to its end, or until policy no longer allows it.
pub(super) async fn carry(proxy: &Proxy, client: impl Into<Begun>, reached: Reached) {
    let Reached {
        server,
        mut record,
        mut tracked,
    } = reached;
    let counters = tracked.counters().clone();
    record.opened(&counters);
    let result = tokio::select! {
        result = forward(client, server, &counters) => result.map_err(Failure::from),
        denied = tracked.cut() => Err(denied.into()),
    };
    close(proxy, &mut record, &result);
}

/// Puts on record how a connection that was carried has ended.
pub(super) fn close<Made>(proxy: &Proxy, record: &mut Record, result: &Result<Made, Failure>) {
    match result {
        Ok(_) => record.completed(),
        Err(failure) => record.ended(failure.outcome(proxy.config.plane, far(record))),
    }
}

/// Puts a failure on record, which ends the record.
pub(super) fn fail(proxy: &Proxy, mut record: Record, failure: Failure) -> Failure {
    record.ended(failure.outcome(proxy.config.plane, far(&record)));
    failure
}

/// The plane that serves the destination, where the control plane says.
pub(super) fn far(record: &Record) -> Option<Layer> {
    record.destination.workload.as_ref()?.plane()
}
