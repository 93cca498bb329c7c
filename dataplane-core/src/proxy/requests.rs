//! Connections on which requests may come, for planes that read them: what such a plane is handed, and how it gets
//! on. An application is connected to only by a proof that policy allows it; what turns out to be bytes goes the way
//! of all bytes, and is decided about as such.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connections::{Direction, Tracked};
use super::inbound::{self, Arrival};
use super::{Home, outbound};
use crate::balance::Endpoint;
use crate::forward::{ForwardError, Side, SideBytes};
use crate::identify::Peer;
use crate::resolve::requests_to;
use crate::telemetry::{Party, Record, Reporter};
use trefoil_dataplane_state::state::{Service, Workload};

/// How long requests under way have to be ended with the reason, on a connection that is cut.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What becomes of connections on which requests may come.
pub trait Requests: Send + Sync {
    /// Whether there are routes for this port of a service that are the client's own: they are its plane's to apply,
    /// whoever else serves the service.
    fn routed(&self, service: &Service, port: u16) -> bool;

    /// Serves one to its end.
    fn serve(self: Arc<Self>, connection: Readable) -> BoxFuture<'static, ()>;
}

/// Who reads requests, if anybody does.
pub(super) type Reader = Option<Arc<dyn Requests>>;

/// A connection on which requests may come.
pub struct Readable {
    /// The pod's plane.
    pub home: Home,
    /// Whether the pod is the client or the server.
    pub direction: Direction,
    /// The client: the pod itself, where it is the client.
    pub peer: Peer,
    /// The client's address.
    pub source: SocketAddr,
    /// What was dialled.
    pub destination: SocketAddr,
    /// The pod's workload.
    pub own: Arc<Workload>,
    /// The service that was dialled, if it was one.
    pub service: Option<Arc<Service>>,
    /// The endpoint that was dialled itself: the pod's own, where it is the server.
    pub endpoint: Option<Endpoint>,
    client: SideBytes,
    tracked: Tracked,
    reader: Arc<dyn Requests>,
    /// From before anything of it was read: a client that is asked to leave meanwhile must not stay.
    leaving: Leave,
}

/// When the client of a connection is to be asked to come again.
pub type Leave = BoxFuture<'static, ()>;

/// One that has reached its server's plane, where requests of it may be allowed.
pub(super) struct Unread {
    pub(super) reader: Arc<dyn Requests>,
    pub(super) arrival: Arrival,
    /// The pod's workload.
    pub(super) server: Arc<Workload>,
    pub(super) record: Record,
    pub(super) tracked: Tracked,
}

impl Unread {
    /// Serves it, of `client`, to its end.
    pub(super) fn serve(self, client: Side, home: Home) -> BoxFuture<'static, ()> {
        // From here on its requests are on record, or it is as bytes.
        self.record.leave_to_others();
        let endpoint = Endpoint {
            workload: self.server.clone(),
            address: self.arrival.destination,
        };
        let leaving = Box::pin(home.leave());
        let connection = Readable {
            home,
            direction: Direction::Inbound,
            peer: self.arrival.peer,
            source: self.arrival.source,
            destination: self.arrival.destination,
            own: self.server,
            service: self.arrival.service,
            endpoint: Some(endpoint),
            client: client.into(),
            tracked: self.tracked,
            reader: self.reader.clone(),
            leaving,
        };
        self.reader.serve(connection)
    }
}

/// A connection of the pod's to `destination`, where its requests are this plane's to read.
pub(super) async fn dialled(
    home: Home,
    reader: Arc<dyn Requests>,
    (source, destination): (SocketAddr, SocketAddr),
) -> Option<impl FnOnce(Side) -> Readable> {
    // Where it is not known, what is dialled fails as bytes.
    let own = home.workload().await.ok()?;
    let known = home.store().snapshot();
    let routed = |service: &Service| reader.routed(service, destination.port());
    let (service, endpoint) = requests_to(&known, &own, destination, routed)?;
    Some(move |client: Side| {
        let peer = Peer::same_node(home.pod.identity.clone());
        let of = (Direction::Outbound, "");
        let connections = &home.proxy.connections;
        let tracked = connections.track(&home.pod.uid, of, (source, destination), Peer::Unauthenticated);
        Readable {
            direction: Direction::Outbound,
            peer,
            source,
            destination,
            own,
            service,
            endpoint,
            client: client.into(),
            tracked,
            reader,
            leaving: Box::pin(home.leave()),
            home,
        }
    })
}

impl Readable {
    /// The client's bytes, for who finds out what they are.
    pub fn client(&mut self) -> &mut SideBytes {
        &mut self.client
    }

    /// They are bytes, of which `read` was read: they are carried like any others.
    pub async fn bytes(self, read: Bytes) {
        let Self {
            home: Home { proxy, pod },
            direction,
            peer,
            source,
            destination,
            service,
            client,
            tracked,
            ..
        } = self;
        let mut client = client.begun(read);
        if direction == Direction::Outbound {
            drop(tracked);
            return outbound::dial(&proxy, &pod, client, (source, destination)).await;
        }
        let arrival = Arrival {
            peer,
            source,
            destination,
            service,
        };
        let reached = Box::pin(inbound::reach(&proxy, &pod, proxy.record(source), arrival)).await;
        // Registered anew by now: at no time is it not.
        drop(tracked);
        match reached {
            Ok(reached) => inbound::carry(&proxy, client, reached).await,
            Err(failure) => client.side.reset_for(failure.reset()),
        }
    }

    /// They are requests, which `serve` answers, each decided about; for as long as any could be allowed.
    pub async fn requests<Serving>(self, serve: impl FnOnce(SideBytes, Leave) -> Serving)
    where
        Serving: Future<Output = ()>,
    {
        let (elsewhere, record, cut) = (self.elsewhere(), self.record(), CancellationToken::new());
        let told = cut.clone();
        let (home, client, leaving) = (self.home, self.client, self.leaving);
        let leave = Box::pin(async move {
            tokio::select! {
                () = leaving => {}
                () = elsewhere => {}
                () = told.cancelled() => {}
            }
        });
        let mut tracked = self.tracked;
        let serving = serve(client.counted(tracked.counters().clone()), leave);
        tokio::pin!(serving);
        let denied = tokio::select! {
            biased;
            () = &mut serving => return record.leave_to_others(),
            denied = tracked.cut() => denied,
        };
        // Those under way are ended with the reason by who reads them, who is let finish that.
        cut.cancel();
        let ended = timeout(LAST_WORDS, serving).await.is_ok();
        tracing::debug!(ended, "no request could be allowed any more");
        home.fail(record, denied.into());
    }

    /// The client broke it before it had asked for anything.
    pub fn broken(self, error: io::Error) {
        let record = self.record();
        self.home.fail(record, ForwardError::Client(error.into()).into());
    }

    /// A record of it, for when none of its requests tells what became of it.
    fn record(&self) -> Record {
        let proxy = &self.home.proxy;
        let own = Party {
            identity: Some(self.own.identity.clone()),
            workload: Some(self.own.clone()),
        };
        let mut record = match self.direction {
            Direction::Outbound => {
                let mut record = Record::new(&proxy.metrics, Reporter::Source, self.source);
                record.source = own;
                record
            }
            Direction::Inbound | Direction::Through => {
                let mut record = proxy.record(self.source);
                record.path = self.peer.path();
                record.source = self.home.client(&self.peer, self.source);
                record.destination = own;
                record
            }
        };
        record.destination_address = Some(self.destination);
        record.service.clone_from(&self.service);
        record
    }

    /// Resolves once such connections are not this plane's to read any more.
    fn elsewhere(&self) -> impl Future<Output = ()> + Send + 'static {
        let (home, reader) = (self.home.clone(), self.reader.clone());
        let (direction, own, destination) = (self.direction, self.own.uid.clone(), self.destination);
        async move {
            let mut changes = home.store().changes();
            while is_ours(&home, &*reader, direction, &own, destination) {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Whether the requests of a connection to `destination` are for the plane of the workload `own` to read.
fn is_ours(
    home: &Home,
    reader: &dyn Requests,
    direction: Direction,
    own: &str,
    destination: SocketAddr,
) -> bool {
    let known = home.store().snapshot();
    let Some(own) = known.workload(own) else {
        return true;
    };
    if direction == Direction::Inbound {
        return inbound::may_be_requests(&own, destination.port());
    }
    let routed = |service: &Service| reader.routed(service, destination.port());
    requests_to(&known, &own, destination, routed).is_some()
}
