//! Connections to endpoints, kept for those who may use them: one owner, one endpoint, one version of HTTP. They are
//! never another owner's, live no longer than an age, and idle ones are bounded. It never decides who may connect:
//! that takes a proof.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use trefoil_dataplane_core::forward::{DENIED, Lease as Tunnel, UNREACHED};
use trefoil_dataplane_core::telemetry::{Flag, Layer};

use crate::answer::Refusal;
use crate::body::Body;
use crate::http2;
use crate::incoming::{Broken, Incoming};
use crate::interim;
use crate::request::told;
use crate::seam::{Carrier, Downstream, OpenFailure, Opened, Owner, Permit, Server};
use crate::under_way::Passage;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Unused HTTP/1 connections that are kept for one owner to one endpoint.
const IDLE_EACH: usize = 32;
/// And for all.
const IDLE_ALL: usize = 4_096;
/// How long an HTTP/1 connection may take to become usable again.
const SETTLE: Duration = Duration::from_secs(5);
/// The largest head of a response over HTTP/1.
const HEAD: usize = 64 * 1024;

/// Which HTTP is spoken with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    One,
    Two,
}

/// What may use a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    owner: Arc<Owner>,
    /// For which it was opened, as the other end was told.
    service: Option<String>,
    uid: String,
    address: SocketAddr,
    version: Version,
}

/// The way to an endpoint, for one request.
pub(crate) struct Way<'a> {
    pub(crate) carrier: &'a dyn Carrier,
    pub(crate) owner: &'a Arc<Owner>,
    pub(crate) downstream: &'a Downstream,
    pub(crate) server: &'a Server,
    pub(crate) permit: &'a Permit,
    pub(crate) version: Version,
    pub(crate) max_age: Duration,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection: nothing was sent.
    #[error("{0}")]
    Open(OpenFailure),
    /// The connection broke.
    #[error("{error}")]
    Broken {
        /// How.
        #[source]
        error: Broken,
        /// It had been used before, and the server may have ended it just as it was used again.
        reused: bool,
    },
}

impl<E: Into<Broken>> From<E> for SendError {
    fn from(error: E) -> Self {
        let error = error.into();
        Self::Broken { error, reused: false }
    }
}

/// What became of a request whose connection broke: the plane at the other end of its tunnel may have said it.
pub(crate) fn broke(error: &Broken) -> Refusal {
    let (flag, layer) = match error.io_kind() {
        Some(DENIED) => (Flag::Deny, Layer::Policy),
        Some(UNREACHED) => (Flag::Connect, Layer::Application),
        _ => return Refusal::Broken(told(error)),
    };
    let reason = told(error);
    Refusal::Open(OpenFailure { reason, layer, flag })
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    slots: HashMap<Key, Slot>,
    /// HTTP/1 connections in all of them.
    idle: usize,
}

#[derive(Debug, Default)]
struct Slot {
    idle: Vec<Kept<http1::SendRequest<Body>>>,
    shared: Option<Kept<http2::Sender>>,
    /// Held by the one who opens a connection that all will share.
    opening: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Kept<S> {
    sender: S,
    tunnel: Option<Arc<dyn Tunnel>>,
    born: Instant,
    used: Instant,
}

/// Whether nothing new may be begun on a connection that was `born` then, in a `tunnel` or not.
fn is_over(tunnel: Option<&Arc<dyn Tunnel>>, born: Instant, max_age: Duration) -> bool {
    born + max_age <= Instant::now() || tunnel.is_some_and(|tunnel| tunnel.leaving())
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::Sender),
}

impl Sender {
    /// Sends a request; `interim` is told what comes before its response. Where nothing was sent of it, it comes back.
    async fn send(
        &mut self,
        mut request: Request<Body>,
        interim: Option<&Arc<Passage>>,
    ) -> Result<Response<Incoming>, (Broken, Option<Request<Body>>)> {
        match self {
            Self::One(sender) => {
                if let Some(passage) = interim {
                    interim::listen(&mut request, passage);
                }
                let sent = sender.try_send_request(request).await;
                sent.map(|response| response.map(Incoming::One))
                    .map_err(|mut error| {
                        let unsent = error.take_message();
                        (error.into_error().into(), unsent)
                    })
            }
            Self::Two(sender) => {
                let tell = |said: Response<()>| {
                    if let Some(passage) = interim {
                        passage.interim(said.status(), said.headers());
                    }
                };
                let sent = sender.send(request, tell).await;
                sent.map(|response| response.map(Incoming::Two))
                    .map_err(|unsent| (unsent.error.into(), unsent.request))
            }
        }
    }
}

struct Connection {
    sender: Sender,
    tunnel: Option<Arc<dyn Tunnel>>,
    born: Instant,
}

/// The use of a connection. Given back once the response has ended; dropped before, an HTTP/1 connection is closed.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    key: Key,
    connection: Connection,
    max_age: Duration,
}

impl Pool {
    /// Sends a request over a connection of its owner's, or a new one. A connection that had died before anything
    /// was sent over it is no failure.
    pub(crate) async fn send(
        self: &Arc<Self>,
        way: &Way<'_>,
        mut request: Request<Body>,
        interim: Option<&Arc<Passage>>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let key = Key {
            owner: way.owner.clone(),
            service: way.server.service.as_ref().map(|service| service.key()),
            uid: way.server.endpoint.workload.uid.clone(),
            address: way.server.endpoint.address,
            version: way.version,
        };
        loop {
            let (mut connection, fresh) = match self.take(&key, way.max_age) {
                Some(connection) => (connection, false),
                None => (self.open(way, &key).await?, true),
            };
            match connection.sender.send(request, interim).await {
                Ok(response) => {
                    let lease = Lease {
                        pool: self.clone(),
                        key,
                        connection,
                        max_age: way.max_age,
                    };
                    return Ok((response, lease));
                }
                Err((_, Some(unsent))) if !fresh => request = unsent,
                Err((error, _)) => {
                    let reused = !fresh;
                    return Err(SendError::Broken { error, reused });
                }
            }
        }
    }

    fn take(&self, key: &Key, max_age: Duration) -> Option<Connection> {
        let mut held = self.lock();
        let Held { slots, idle } = &mut *held;
        let slot = slots.get_mut(key)?;
        let now = Instant::now();
        if let Some(shared) = &mut slot.shared {
            if shared.sender.is_over() || is_over(shared.tunnel.as_ref(), shared.born, max_age) {
                slot.shared = None;
            } else if !shared.sender.has_room() {
                // It ends with those that use it; another is opened beside it.
                slot.shared = None;
            } else {
                shared.used = now;
                return Some(Connection {
                    sender: Sender::Two(shared.sender.clone()),
                    tunnel: shared.tunnel.clone(),
                    born: shared.born,
                });
            }
        }
        while let Some(kept) = slot.idle.pop() {
            *idle -= 1;
            if kept.sender.is_ready() && !is_over(kept.tunnel.as_ref(), kept.born, max_age) {
                return Some(Connection {
                    sender: Sender::One(kept.sender),
                    tunnel: kept.tunnel,
                    born: kept.born,
                });
            }
        }
        None
    }

    async fn open(&self, way: &Way<'_>, key: &Key) -> Result<Connection, SendError> {
        if way.version == Version::One {
            return connect_one(way).await;
        }
        let opening = self.lock().slots.entry(key.clone()).or_default().opening.clone();
        let _first = opening.lock().await;
        // Another may have been faster.
        if let Some(connection) = self.take(key, way.max_age) {
            return Ok(connection);
        }
        let connection = connect_two(way).await?;
        if let Sender::Two(sender) = &connection.sender {
            let kept = Kept {
                sender: sender.clone(),
                tunnel: connection.tunnel.clone(),
                born: connection.born,
                used: connection.born,
            };
            self.lock().slots.entry(key.clone()).or_default().shared = Some(kept);
        }
        Ok(connection)
    }

    fn keep(&self, key: &Key, kept: Kept<http1::SendRequest<Body>>) {
        let mut held = self.lock();
        let Held { slots, idle } = &mut *held;
        let slot = slots.entry(key.clone()).or_default();
        if *idle < IDLE_ALL && slot.idle.len() < IDLE_EACH {
            *idle += 1;
            slot.idle.push(kept);
        }
    }

    /// Lets go of what has not been used for a while. To be called every few seconds.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut held = self.lock();
        held.slots.retain(|_, slot| {
            slot.idle
                .retain(|kept| kept.used + IDLE > now && !kept.sender.is_closed());
            if slot
                .shared
                .as_ref()
                .is_some_and(|kept| kept.used + IDLE <= now || kept.sender.is_over())
            {
                slot.shared = None;
            }
            let opening = Arc::strong_count(&slot.opening) > 1;
            opening || slot.shared.is_some() || !slot.idle.is_empty()
        });
        held.idle = held.slots.values().map(|slot| slot.idle.len()).sum();
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect_one(way: &Way<'_>) -> Result<Connection, SendError> {
    let opened = way.carrier.open(way.server, way.permit, way.downstream);
    let Opened { io, tunnel } = opened.await.map_err(SendError::Open)?;
    let (sender, connection) = http1::Builder::new()
        .max_header_size(HEAD)
        .handshake(TokioIo::new(io))
        .await?;
    // Its failure is told to whoever uses it.
    tokio::spawn(connection.with_upgrades());
    Ok(Connection {
        sender: Sender::One(sender),
        tunnel,
        born: Instant::now(),
    })
}

async fn connect_two(way: &Way<'_>) -> Result<Connection, SendError> {
    let opened = way.carrier.open(way.server, way.permit, way.downstream);
    let Opened { io, tunnel } = opened.await.map_err(SendError::Open)?;
    Ok(Connection {
        sender: Sender::Two(http2::connect(io).await?),
        tunnel,
        born: Instant::now(),
    })
}

impl Lease {
    /// The response has ended: the connection may be used again.
    pub(crate) fn give_back(self) {
        let Connection { sender, tunnel, born } = self.connection;
        let Sender::One(sender) = sender else {
            return;
        };
        if is_over(tunnel.as_ref(), born, self.max_age) {
            return;
        }
        let mut kept = Kept {
            sender,
            tunnel,
            born,
            used: Instant::now(),
        };
        if kept.sender.is_ready() {
            return self.pool.keep(&self.key, kept);
        }
        // Its own task has to notice the end first.
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(SETTLE, kept.sender.ready()).await {
                kept.used = Instant::now();
                self.pool.keep(&self.key, kept);
            }
        });
    }
}
