//! The connections there are: registered before they are decided, so that a change of policy between the two
//! finds them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trefoil_api::policy::Asked;

use super::failure::Failure;
use crate::authorize::{Denied, authorize};
use crate::forward::Counters;
use crate::identify::Peer;
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::Guard;

/// Which way a connection goes, from its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The pod is the client.
    Outbound,
    /// The pod is the server.
    Inbound,
    /// The pod is a waypoint.
    Through,
}

/// A connection, as the admin interface shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// Kubernetes uid of the pod it is of.
    pub pod: String,
    /// Which way it goes.
    pub direction: Direction,
    /// The client's address.
    pub source: SocketAddr,
    /// The server's address, as the client dialled it.
    pub destination: SocketAddr,
    /// Who the other end is, where it has proved it.
    pub peer: Option<String>,
    /// `mutual_tls`, `same_node` or `none`; of outbound connections the server's plane knows.
    pub path: &'static str,
    /// Age.
    pub seconds: u64,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes from the server.
    pub sent: u64,
}

/// What is registered.
pub(super) struct Live {
    pub(super) pod: String,
    pub(super) direction: Direction,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) peer: Peer,
    /// xDS uid of the server, of connections that are decided here.
    pub(super) server: String,
    /// Who decides about it; none until that is known, and it is decided.
    pub(super) decided_by: OnceLock<DecidedBy>,
    pub(super) counters: Arc<Counters>,
    pub(super) since: Instant,
    pub(super) cut: Mutex<Option<oneshot::Sender<Denied>>>,
}

/// Who decides about what a connection carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum DecidedBy {
    /// This plane, as bytes.
    Plane,
    /// The waypoint that it was handed to.
    Waypoint,
    /// Whoever reads its requests: it is cut once none of them could be allowed.
    Reader,
}

/// All connections of a proxy.
#[derive(Default)]
pub(super) struct Connections {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Arc<Live>>>,
}

/// A registered connection; dropped, it is registered no more.
#[must_use]
pub struct Tracked {
    id: u64,
    connections: Arc<Connections>,
    live: Arc<Live>,
    cut: oneshot::Receiver<Denied>,
}

impl Live {
    /// Cuts the connection if what is known now no longer allows it.
    pub(super) fn enforce(&self, store: &Store) {
        let Some(server) = store.workload(&self.server) else {
            return;
        };
        let (source, destination) = (self.source.ip(), self.destination);
        let asked = match self.decided_by.get() {
            // It will be, by what is known then.
            None => return,
            Some(DecidedBy::Plane) => Asked::Bytes,
            Some(DecidedBy::Reader) => Asked::Unread,
            // The waypoint cuts what it no longer allows, from its end.
            Some(DecidedBy::Waypoint) => match &server.guard {
                Some(Guard::Closed(reason)) => return self.cut(Denied::Closed(reason.clone())),
                _ => return,
            },
        };
        let decided = authorize(store, &self.peer, &server, source, destination, asked);
        if let Err(denied) = decided {
            self.cut(denied);
        }
    }

    /// Ends the connection, which policy no longer allows.
    fn cut(&self, denied: Denied) {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cut) = cut {
            // Gone by itself meanwhile.
            let _ = cut.send(denied);
        }
    }
}

impl Connections {
    pub(super) fn track(
        self: &Arc<Self>,
        pod: &str,
        (direction, server): (Direction, &str),
        (source, destination): (SocketAddr, SocketAddr),
        peer: Peer,
    ) -> Tracked {
        let (sender, cut) = oneshot::channel();
        let live = Arc::new(Live {
            pod: pod.to_owned(),
            direction,
            source,
            destination,
            peer,
            server: server.to_owned(),
            decided_by: OnceLock::new(),
            counters: Arc::default(),
            since: Instant::now(),
            cut: Mutex::new(Some(sender)),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, live.clone());
        Tracked {
            id,
            connections: self.clone(),
            live,
            cut,
        }
    }

    /// Those that are decided here.
    pub(super) fn decided(&self) -> Vec<Arc<Live>> {
        let decided = |live: &&Arc<Live>| live.direction != Direction::Outbound;
        self.lock().values().filter(decided).cloned().collect()
    }

    pub(super) fn list(&self) -> Vec<Connection> {
        let live: Vec<Arc<Live>> = self.lock().values().cloned().collect();
        live.iter().map(|live| live.show()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn show(&self) -> Connection {
        let (received, sent) = self.counters.read();
        Connection {
            pod: self.pod.clone(),
            direction: self.direction,
            source: self.source,
            destination: self.destination,
            peer: self.peer.identity().map(ToString::to_string),
            path: self.peer.path(),
            seconds: self.since.elapsed().as_secs(),
            received,
            sent,
        }
    }
}

impl Tracked {
    /// What it has carried.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.live.counters
    }

    /// Who decides about it. Said once, before anything is read that decides: what changes from then on finds it.
    pub(super) fn decided_by(&self, who: DecidedBy) {
        // Nobody else says it.
        let _ = self.live.decided_by.set(who);
    }

    /// Connects, unless policy no longer allows the connection meanwhile.
    pub async fn unless_cut<T, E>(
        &mut self,
        connecting: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        tokio::select! {
            biased;
            denied = self.cut() => Err(denied.into()),
            connected = connecting => Ok(connected?),
        }
    }

    /// Resolves if policy no longer allows the connection.
    pub async fn cut(&mut self) -> Denied {
        match (&mut self.cut).await {
            Ok(denied) => denied,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
    }
}
