//! What arrives for a pod. However it came, it is decided here, and here alone an application is connected
//! to.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use trefoil_api::proto::trefoil::v1::Plane;

use super::Proxy;
use super::connections::{Direction, Tracked};
use super::evaluate::placed;
use super::failure::Failure;
use super::outbound::captured;
use super::pod::Served;
use crate::authorize::{Authorized, authorize};
use crate::forward::{Side, forward};
use crate::identify::Peer;
use crate::sockets;
use crate::state::{Service, Workload};
use crate::telemetry::{Layer, Party, Record, Reporter};

/// A connection to decide.
pub(super) struct Arrival {
    pub(super) peer: Peer,
    /// The client's address.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The service that was dialled, where that is known.
    pub(super) service: Option<Arc<Service>>,
}

/// A connection that was allowed, and its application.
pub(super) struct Reached {
    pub(super) application: TcpStream,
    pub(super) record: Record,
    pub(super) tracked: Tracked,
}

/// Serves a connection that came as plaintext.
pub(super) async fn serve(proxy: Arc<Proxy>, pod: Arc<Served>, client: TcpStream, source: SocketAddr) {
    let reached = Box::pin(async {
        let record = Record::new(&proxy.metrics, Reporter::Destination, source);
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
        reach(&proxy, &pod, record, arrival).await
    });
    match reached.await {
        Ok(reached) => carry(&proxy, Side::Tcp(client), reached).await,
        Err(_) => sockets::reset(client),
    }
}

/// Decides about a connection and, if it is allowed, connects to its application. A failure is on record.
pub(super) async fn reach(
    proxy: &Proxy,
    pod: &Served,
    mut record: Record,
    arrival: Arrival,
) -> Result<Reached, Failure> {
    match try_reach(proxy, pod, &mut record, arrival).await {
        Ok((application, tracked)) => Ok(Reached {
            application,
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
    arrival: Arrival,
) -> Result<(TcpStream, Tracked), Failure> {
    let Arrival {
        peer,
        source,
        destination,
        service,
    } = arrival;
    record.destination_address = Some(destination);
    record.destination.identity = Some(pod.identity.clone());
    record.path = peer.path();
    record.source = client(proxy, &peer, source);
    record.service = service;
    let (ends, of) = (
        (source, destination),
        (Direction::Inbound, pod.workload_uid.as_str()),
    );
    // Registered before anything is read that decides: what changes between the two finds the connection.
    let mut tracked = proxy.connections.track(&pod.uid, of, ends, peer.clone());
    let server = pod.workload(proxy).await?;
    record.destination.workload = Some(server.clone());
    // However it came: nobody is carried on to an address that is not the pod's.
    placed(&server, destination)?;
    let authorized = authorize(&proxy.store, &peer, &server, source.ip(), destination, None)?;
    record.policy = match authorized.reason() {
        trefoil_api::policy::Reason::Matched(policy) => Some(policy.clone()),
        _ => None,
    };
    record.audited(authorized.audit());
    tokio::select! {
        biased;
        denied = tracked.cut() => Err(denied.into()),
        application = application(pod, &authorized, source) => Ok((application?, tracked)),
    }
}

/// Connects to the application from within its namespace, as the client where that is possible.
async fn application(
    pod: &Served,
    authorized: &Authorized,
    source: SocketAddr,
) -> Result<TcpStream, sockets::ConnectError> {
    sockets::connect(&*pod.dialer, authorized.destination(), Some(source.ip())).await
}

/// The client. Its address alone says nothing: only together with a proven identity it names a workload.
fn client(proxy: &Proxy, peer: &Peer, source: SocketAddr) -> Party {
    let identity = peer.identity().cloned();
    let is_it = |workload: &Arc<Workload>| Some(&workload.identity) == identity.as_ref();
    Party {
        workload: proxy.store.workload_at(source.ip()).filter(is_it),
        identity,
    }
}

/// Carries an allowed connection to its end, or until policy no longer allows it.
pub(super) async fn carry(proxy: &Proxy, client: Side, reached: Reached) {
    let Reached {
        application,
        mut record,
        mut tracked,
    } = reached;
    let counters = tracked.counters().clone();
    record.opened(&counters);
    let result = tokio::select! {
        result = forward(client, Side::Tcp(application), &counters) => result.map_err(Failure::from),
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
    match record.destination.workload.as_ref()?.placement.as_ref()?.plane {
        Plane::Node => Some(Layer::Node),
        Plane::Sidecar => Some(Layer::Sidecar),
        Plane::None | Plane::Unspecified => None,
    }
}
