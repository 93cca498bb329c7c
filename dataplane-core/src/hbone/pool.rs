//! The tunnels of one workload: found again, shared, and given up. All that need one tunnel wait for one
//! handshake. Nothing here outlives its use: whoever drives a tunnel takes it out when it ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::Shared;
use h2::client::SendRequest;
use rand::Rng;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;
use trefoil_api::Identity;

use super::tunnel::{OpenError, Remedy, drive, handshake, open};
use super::{Opening, Window};
use crate::forward::{self, TunnelStream};

#[cfg(test)]
mod tests;

/// Streams in a tunnel from which another tunnel is preferred: one tunnel is one core's work.
const PREFERRED_STREAMS: usize = 4;
/// Tunnels to one place from which they are rather filled.
const PREFERRED_TUNNELS: usize = 4;
/// Streams that a tunnel takes at most, where its other end does not take fewer.
const MOST_STREAMS: usize = 100;
/// Tunnels tried for one stream where they break.
const ATTEMPTS: usize = 3;
/// Tunnels tried for one stream where the other end asks to leave: it is replaced, maybe more than once.
const ATTEMPTS_WHILE_LEAVING: usize = 10;

/// How long tunnels live.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// A tunnel older than this, less up to a fifth, takes no new streams.
    pub max_age: Duration,
    /// A tunnel unused for this long is closed.
    pub idle: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(60 * 60),
            idle: Duration::from_secs(5 * 60),
        }
    }
}

/// Where a tunnel leads, and how it is to be if it is made now.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The plane's listener.
    pub address: SocketAddr,
    /// Who it must be one of.
    pub expected: &'a [Identity],
    /// How long a tunnel that is made now lives.
    pub config: PoolConfig,
}

/// What a tunnel is made of.
#[derive(Debug)]
pub struct Connected {
    /// A connection to the plane.
    pub stream: TcpStream,
    /// Who this end is, and who the other must be.
    pub tls: Arc<ClientConfig>,
    /// What the other end may send before it is taken.
    pub window: Window,
}

/// The tunnels of one workload.
#[derive(Debug, Default)]
pub struct Pool {
    tunnels: Arc<Tunnels>,
}

/// By where they lead.
type Tunnels = Mutex<HashMap<SocketAddr, Vec<Arc<Tunnel>>>>;
type Ready = Shared<futures::future::BoxFuture<'static, Result<SendRequest<Bytes>, OpenError>>>;

/// A tunnel, or one that is being set up.
struct Tunnel {
    /// Who its other end must be one of.
    expected: Vec<Identity>,
    ready: Ready,
    /// Streams, and those who wait for one.
    users: AtomicUsize,
    /// Of all time.
    uses: AtomicUsize,
    /// It is not to be found any more.
    taken_out: AtomicBool,
}

/// The use of a tunnel by one stream.
#[derive(Debug)]
struct Lease(Arc<Tunnel>);

impl forward::Lease for Lease {
    fn leaving(&self) -> bool {
        self.0.taken_out.load(Ordering::Relaxed) || self.0.left()
    }
}

impl Pool {
    /// Opens a stream to the plane at `place`. Where there is no tunnel to share, `connect` starts one, which
    /// must see to it that the other end is one of those expected.
    pub async fn open<C, F>(
        &self,
        place: &Place<'_>,
        opening: &Opening<'_>,
        connect: C,
    ) -> Result<TunnelStream, OpenError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Connected, OpenError>> + Send + 'static,
    {
        let (address, mut attempt, mut broken) = (place.address, 1, false);
        loop {
            let lease = self.lease(place, broken, &connect);
            let result = match lease.0.ready.clone().await {
                Ok(send) => match opening.request() {
                    Ok(request) => open(&send, request).await,
                    Err(error) => Err(OpenError::Request(Arc::new(error))),
                },
                Err(error) => Err(error),
            };
            match result {
                Ok(stream) => return Ok(stream.holding(Arc::new(lease))),
                Err(error) if attempt < attempts(&error) => {
                    tracing::debug!(%address, %error, "the tunnel takes no more streams: trying another");
                    take_out(&self.tunnels, address, Arc::as_ptr(&lease.0));
                    attempt += 1;
                    // A plane that dies takes all its tunnels with it, if one after the other: none that stood
                    // before is worth an attempt.
                    broken |= matches!(error.remedy(), Remedy::Retry);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Tunnels there are, for the admin interface and tests.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        lock(&self.tunnels).values().map(Vec::len).sum()
    }

    /// A part in a tunnel; if it must be `fresh`, in one that does not stand yet.
    fn lease<C, F>(&self, place: &Place<'_>, fresh: bool, connect: &C) -> Lease
    where
        C: Fn() -> F,
        F: Future<Output = Result<Connected, OpenError>> + Send + 'static,
    {
        let mut tunnels = lock(&self.tunnels);
        let there = tunnels.entry(place.address).or_default();
        let takes = |tunnel: &&Arc<Tunnel>| {
            tunnel.usable(place.expected) && !(fresh && tunnel.ready.peek().is_some())
        };
        let usable = || there.iter().filter(takes);
        let best = usable().min_by_key(|tunnel| tunnel.users.load(Ordering::Relaxed));
        let tunnel = match best {
            Some(best)
                if best.users.load(Ordering::Relaxed) < PREFERRED_STREAMS
                    || usable().count() >= PREFERRED_TUNNELS =>
            {
                best.clone()
            }
            _ => {
                let tunnel = self.start(place, connect());
                there.push(tunnel.clone());
                tunnel
            }
        };
        tunnel.users.fetch_add(1, Ordering::Relaxed);
        tunnel.uses.fetch_add(1, Ordering::Relaxed);
        Lease(tunnel)
    }

    /// Starts a tunnel and the task that has it for its life.
    fn start<F>(&self, place: &Place<'_>, connect: F) -> Arc<Tunnel>
    where
        F: Future<Output = Result<Connected, OpenError>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let ended = |_| Err(OpenError::TimedOut("before it was given up"));
        let tunnel = Arc::new(Tunnel {
            expected: place.expected.to_vec(),
            ready: told.map(move |told| told.unwrap_or_else(ended)).boxed().shared(),
            users: AtomicUsize::new(0),
            uses: AtomicUsize::new(0),
            taken_out: AtomicBool::new(false),
        });
        let (address, config) = (place.address, place.config);
        let (tunnels, this) = (Arc::downgrade(&self.tunnels), Arc::downgrade(&tunnel));
        tokio::spawn(async move {
            let remove = || {
                if let Some(tunnels) = tunnels.upgrade() {
                    take_out(&tunnels, address, this.as_ptr());
                }
            };
            let result = async {
                let Connected { stream, tls, window } = connect.await?;
                let (send, connection) = handshake(stream, tls, &window).await?;
                Ok((send, connection, window))
            };
            let (connection, _window) = match result.await {
                Ok((send, connection, window)) => {
                    let _ = tell.send(Ok(send));
                    (connection, window)
                }
                Err(error) => {
                    remove();
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            let driving = drive(connection);
            tokio::pin!(driving);
            tokio::select! {
                () = &mut driving => remove(),
                () = given_up(&this, config) => {
                    remove();
                    // Its streams run to their end; then nobody holds it, and it closes.
                    driving.await;
                }
            }
        });
        tunnel
    }
}

/// How many tunnels to try, of which the last failed with `error`.
fn attempts(error: &OpenError) -> usize {
    match error.remedy() {
        Remedy::None => 1,
        Remedy::Retry => ATTEMPTS,
        Remedy::Leave => ATTEMPTS_WHILE_LEAVING,
    }
}

/// Resolves once a tunnel should take no new streams: it is old, or nobody uses it.
async fn given_up(tunnel: &Weak<Tunnel>, config: PoolConfig) {
    let age = config.max_age.mul_f64(1.0 - rand::rng().random_range(0.0..0.2));
    let unused = async {
        let mut before = None;
        loop {
            let Some(now) = tunnel.upgrade().map(|tunnel| tunnel.usage()) else {
                return;
            };
            if now.0 == 0 && before == Some(now) {
                return;
            }
            before = Some(now);
            sleep(config.idle).await;
        }
    };
    tokio::select! {
        () = sleep(age) => {}
        () = unused => {}
    }
}

impl Tunnel {
    /// (users now, uses ever).
    fn usage(&self) -> (usize, usize) {
        (
            self.users.load(Ordering::Relaxed),
            self.uses.load(Ordering::Relaxed),
        )
    }

    /// Whether it may be shared by one who expects these: whoever its other end proved to be is one of them.
    fn usable(&self, expected: &[Identity]) -> bool {
        let most = match self.ready.peek() {
            Some(Ok(send)) => send.current_max_send_streams().min(MOST_STREAMS),
            Some(Err(_)) => return false,
            None => MOST_STREAMS,
        };
        self.expected.iter().all(|one| expected.contains(one)) && self.users.load(Ordering::Relaxed) < most
    }
}

impl Tunnel {
    /// Whether it stood, and its other end has asked to leave or is gone.
    fn left(&self) -> bool {
        let Some(Ok(send)) = self.ready.peek() else {
            return false;
        };
        let mut now = Context::from_waker(Waker::noop());
        matches!(send.clone().poll_ready(&mut now), Poll::Ready(Err(_)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut tunnel = f.debug_struct("Tunnel");
        tunnel
            .field("expected", &self.expected)
            .field("users", &self.users);
        tunnel.finish_non_exhaustive()
    }
}

fn lock(tunnels: &Tunnels) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Arc<Tunnel>>>> {
    tunnels.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_out(tunnels: &Tunnels, address: SocketAddr, tunnel: *const Tunnel) {
    let mut tunnels = lock(tunnels);
    if let Some(there) = tunnels.get_mut(&address) {
        there.retain(|other| {
            let it = std::ptr::eq(Arc::as_ptr(other), tunnel);
            other.taken_out.fetch_or(it, Ordering::Relaxed);
            !it
        });
        if there.is_empty() {
            tunnels.remove(&address);
        }
    }
}
