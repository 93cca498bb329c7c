//! Connections to endpoints, kept for those who may use them: one owner, one endpoint, one version of HTTP. They are
//! never another owner's, live no longer than an age, and idle ones are bounded. It never decides who may connect:
//! that takes a proof.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout};
use trefoil_dataplane_core::forward::{DENIED, Lease as Tunnel, UNREACHED};
use trefoil_dataplane_core::telemetry::{Flag, Layer};

use crate::answer::Refusal;
use crate::body::Body;
use crate::request::told;
use crate::seam::{Carrier, Downstream, OpenFailure, Opened, Owner, Permit, Server};

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Unused HTTP/1 connections that are kept for one owner to one endpoint.
const IDLE_EACH: usize = 32;
/// And for all.
const IDLE_ALL: usize = 4_096;
/// How long an HTTP/1 connection may take to become usable again.
const SETTLE: Duration = Duration::from_secs(5);
/// What one HTTP/2 stream may be sent before it is read, and all of a connection.
const WINDOWS: (u32, u32) = (256 * 1024, 4 * 1024 * 1024);
/// The largest head of a response.
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
    Open(#[from] OpenFailure),
    /// The connection broke.
    #[error("{error}")]
    Broken {
        /// How.
        #[source]
        error: hyper::Error,
        /// It had been used before, and the server may have ended it just as it was used again.
        reused: bool,
    },
}

impl From<hyper::Error> for SendError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken { error, reused: false }
    }
}

/// Whether the other end says that it has not acted upon the request (RFC 9113, section 8.7).
pub(crate) fn refused(error: &hyper::Error) -> bool {
    of_two(error).is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether the other end has ended the connection in order, without an answer to the request.
pub(crate) fn ended(error: &hyper::Error) -> bool {
    let left = |error: &h2::Error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_incomplete_message() || of_two(error).is_some_and(left)
}

/// What became of a request whose connection broke: the plane at the other end of its tunnel may have said it.
pub(crate) fn broke(error: &hyper::Error) -> Refusal {
    let (flag, layer) = match io_kind(error) {
        Some(DENIED) => (Flag::Deny, Layer::Policy),
        Some(UNREACHED) => (Flag::Connect, Layer::Application),
        _ => return Refusal::Broken(told(error)),
    };
    let reason = told(error);
    Refusal::Open(OpenFailure { reason, layer, flag })
}

/// The kind of the error of the connection's bytes, if that is what it is.
fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let of_two = of_two(error).and_then(h2::Error::get_io);
    let mut source = std::error::Error::source(error);
    while of_two.is_none()
        && let Some(error) = source
    {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    of_two.map(io::Error::kind)
}

/// What HTTP/2 says.
fn of_two(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        source = error.source();
    }
    None
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
    shared: Option<Kept<http2::SendRequest<Body>>>,
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
    Two(http2::SendRequest<Body>),
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
            let sent = match &mut connection.sender {
                Sender::One(sender) => sender.try_send_request(request).await,
                Sender::Two(sender) => sender.try_send_request(request).await,
            };
            match sent {
                Ok(response) => {
                    let lease = Lease {
                        pool: self.clone(),
                        key,
                        connection,
                        max_age: way.max_age,
                    };
                    return Ok((response, lease));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => {
                        let (error, reused) = (error.into_error(), !fresh);
                        return Err(SendError::Broken { error, reused });
                    }
                },
            }
        }
    }

    fn take(&self, key: &Key, max_age: Duration) -> Option<Connection> {
        let mut held = self.lock();
        let Held { slots, idle } = &mut *held;
        let slot = slots.get_mut(key)?;
        let now = Instant::now();
        if let Some(shared) = &mut slot.shared {
            if shared.sender.is_closed() || is_over(shared.tunnel.as_ref(), shared.born, max_age) {
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
                .is_some_and(|kept| kept.used + IDLE <= now || kept.sender.is_closed())
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
    let Opened { io, tunnel } = opened.await?;
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
    let Opened { io, tunnel } = opened.await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_header_list_size(HEAD as u32)
        .handshake(TokioIo::new(io))
        .await?;
    // Its failure is told to whoever uses it.
    tokio::spawn(connection);
    Ok(Connection {
        sender: Sender::Two(sender),
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
