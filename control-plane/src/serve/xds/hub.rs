//! The latest resources and the clients that are to hear of changes. Handing a change to a client is an
//! insertion into its set of names: never I/O, never a wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::session::{Session, TypeSummary};
use super::standing::Standing;
use super::turns::Turns;
use trefoil_control_plane_index::snapshot::{Changes, ResourceKind, Snapshot};

/// See the module. Shared by an `Arc`.
#[derive(Debug)]
pub struct Hub {
    snapshot: ArcSwap<Snapshot>,
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_client: std::sync::atomic::AtomicU64,
    synced: watch::Sender<bool>,
    /// Ticks whenever a client answered or went away.
    answered: watch::Sender<u64>,
    /// What clients take in turns.
    pub(super) turns: Turns,
}

/// One connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    who: Who,
    session: Mutex<Session>,
    standing: Mutex<Standing>,
    pub(super) wake: Notify,
}

/// Who a client is. What it says of itself is for people; nothing is decided by it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Who {
    /// What it calls itself, and whom its token is of.
    pub client: String,
    /// Its address.
    pub peer: String,
    /// What it says that it is: `ztunnel` for a node proxy, `sidecar` or `waypoint`.
    pub role: String,
    /// NAMESPACE/POD of its token, if that is bound to one.
    pub pod: Option<String>,
    /// The node of its token, if that is bound to one.
    pub node: Option<String>,
    /// What it says that its version is.
    pub version: String,
}

/// What is shown of a client.
#[derive(Clone, Debug, Serialize)]
pub struct ClientSummary {
    /// Who it is.
    #[serde(flatten)]
    pub who: Who,
    /// For how long it has been connected.
    pub connected_seconds: u64,
    /// By type.
    pub types: Vec<TypeStanding>,
}

/// What is shown of a client and a type.
#[derive(Clone, Debug, Serialize)]
pub struct TypeStanding {
    /// The type, for people.
    pub kind: &'static str,
    /// Resources of the type that are served.
    pub served: usize,
    /// How many seconds ago the last response was taken; none if none was.
    pub acknowledged_seconds: Option<u64>,
    /// For how many seconds the client has lacked something that it is to have; none if it has all.
    pub behind_seconds: Option<u64>,
    /// What it asked for and holds.
    #[serde(flatten)]
    pub summary: TypeSummary,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            snapshot: ArcSwap::default(),
            clients: Mutex::default(),
            next_client: std::sync::atomic::AtomicU64::new(1),
            synced: watch::Sender::new(false),
            answered: watch::Sender::new(0),
            turns: Turns::default(),
        }
    }
}

impl Hub {
    /// Makes new resources known. The first call says that they are complete.
    pub fn publish(&self, snapshot: Snapshot, changes: &Changes) {
        self.snapshot.store(Arc::new(snapshot));
        let first = !self.synced.send_replace(true);
        if changes.is_empty() && !first {
            return;
        }
        let snapshot = self.snapshot();
        for client in self.clients().values() {
            let mut session = client.session();
            for kind in ResourceKind::ALL {
                session.changed(kind, changes.of(kind), snapshot.of(kind).generation());
            }
            client.note_standing(&session);
            drop(session);
            client.wake.notify_one();
        }
    }

    /// The latest resources.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Whether resources are complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until resources are complete.
    pub async fn synced(&self) {
        // The sender is part of self: it cannot go away meanwhile.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub(super) fn connect(&self, who: Who) -> Arc<Client> {
        let id = self
            .next_client
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let client = Arc::new(Client {
            id,
            who,
            session: Mutex::default(),
            standing: Mutex::new(Standing::new(Instant::now())),
            wake: Notify::new(),
        });
        self.clients().insert(id, client.clone());
        client
    }

    pub(super) fn disconnect(&self, client: &Client) {
        self.clients().remove(&client.id);
        self.note_answer();
    }

    pub(super) fn note_answer(&self) {
        self.answered.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits until every client that is connected has taken the latest of these resources, and for at most
    /// `limit`. Gives the clients that had not, by resource.
    pub async fn taken(&self, names: &[String], limit: Duration) -> BTreeMap<String, Vec<String>> {
        let mut answered = self.answered.subscribe();
        let wait = async {
            loop {
                answered.mark_unchanged();
                if self.owing(names).is_empty() || answered.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whether it was answered or not is read below.
        let _ = tokio::time::timeout(limit, wait).await;
        self.owing(names)
    }

    fn owing(&self, names: &[String]) -> BTreeMap<String, Vec<String>> {
        let mut owing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for client in self.clients().values() {
            let session = client.session();
            for name in names {
                if session.owes(ResourceKind::Address, name) {
                    owing
                        .entry(name.clone())
                        .or_default()
                        .insert(client.who.client.clone());
                }
            }
        }
        owing
            .into_iter()
            .map(|(name, clients)| (name, clients.into_iter().collect()))
            .collect()
    }

    /// How many clients there are.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.clients().len()
    }

    /// What is shown of the clients.
    #[must_use]
    pub fn summaries(&self) -> Vec<ClientSummary> {
        let clients: Vec<_> = self.clients().values().cloned().collect();
        let snapshot = self.snapshot();
        clients
            .into_iter()
            .map(|client| client.summary(&snapshot))
            .collect()
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &str {
        &self.who.client
    }

    /// It took a response.
    pub(super) fn acknowledged(&self, kind: ResourceKind) {
        self.standing().acknowledged(kind, Instant::now());
    }

    /// Notes of which kinds it has not all, after its session changed.
    pub(super) fn note_standing(&self, session: &Session) {
        let (now, mut standing) = (Instant::now(), self.standing());
        for kind in ResourceKind::ALL {
            standing.note(kind, session.is_behind(kind), now);
        }
    }

    fn summary(&self, snapshot: &Snapshot) -> ClientSummary {
        let now = Instant::now();
        let summaries = self.session().summaries();
        let standing = self.standing();
        let types = summaries.into_iter().map(|(kind, summary)| TypeStanding {
            kind: kind.label(),
            served: snapshot.of(kind).len(),
            acknowledged_seconds: standing.acknowledged_seconds(kind, now),
            behind_seconds: standing.behind_seconds(kind, now),
            summary,
        });
        ClientSummary {
            who: self.who.clone(),
            connected_seconds: standing.connected_seconds(now),
            types: types.collect(),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
