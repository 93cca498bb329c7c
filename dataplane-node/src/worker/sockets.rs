//! Pools of sockets that the supervisor made in pods' namespaces. A pool begins with a few and asks for
//! more at once where it runs dry; it never has more than one request under way.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use trefoil_api::proto::trefoil::worker::{Family as WireFamily, NeedSockets, Sockets, from_worker};
use trefoil_dataplane_core::sockets::{Dialer, Family};

use super::channel::Outbox;

#[cfg(test)]
mod tests;

/// The first batch of a pool: most pods dial little.
const SMALLEST_BATCH: u32 = 4;
/// The largest; the supervisor makes no more at once.
const LARGEST_BATCH: u32 = 64;
/// How long a connection waits for a socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// All pools of this worker, by pod.
#[derive(Debug)]
pub(super) struct Pools {
    outbox: Outbox,
    pools: Mutex<HashMap<Key, Pool>>,
}

/// Whose sockets a pool has. A pod whose network was replaced is another generation of its uid: sockets of
/// one namespace never serve another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    generation: u64,
    family: Family,
    datagrams: bool,
}

#[derive(Debug)]
struct Pool {
    ready: VecDeque<OwnedFd>,
    waiting: VecDeque<oneshot::Sender<io::Result<OwnedFd>>>,
    asked: bool,
    batch: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            asked: false,
            batch: SMALLEST_BATCH,
        }
    }
}

impl Pools {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            pools: Mutex::default(),
        }
    }

    /// Drops the sockets of a pod's earlier generations: they belong to a namespace that it no longer has.
    pub(super) fn renew(&self, uid: &str, generation: u64) {
        self.lock()
            .retain(|key, _| key.uid != uid || key.generation == generation);
    }

    /// A pod is served no more.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().retain(|key, _| key.uid != uid);
    }

    /// Sockets came, or the reason why none did.
    pub(super) fn arrived(&self, sockets: &Sockets, descriptors: Vec<OwnedFd>) {
        let family = match WireFamily::try_from(sockets.family) {
            Ok(WireFamily::Ipv4) => Family::V4,
            Ok(WireFamily::Ipv6) => Family::V6,
            _ => return,
        };
        let key = Key {
            uid: sockets.pod_uid.clone(),
            generation: sockets.generation,
            family,
            datagrams: sockets.datagrams,
        };
        let mut pools = self.lock();
        let Some(pool) = pools.get_mut(&key) else {
            return;
        };
        pool.asked = false;
        pool.ready.extend(descriptors);
        if sockets.error.is_empty() {
            pool.serve();
        } else {
            for waiting in pool.waiting.drain(..) {
                let _ = waiting.send(Err(io::Error::other(sockets.error.clone())));
            }
        }
        self.refill(pool, &key);
    }

    async fn take(&self, key: Key) -> io::Result<OwnedFd> {
        let waiting = {
            let mut pools = self.lock();
            let pool = pools.entry(key.clone()).or_default();
            let socket = pool.ready.pop_front();
            let waiting = socket.is_none().then(|| pool.wait());
            self.refill(pool, &key);
            match (socket, waiting) {
                (Some(socket), _) => return Ok(socket),
                (None, Some(waiting)) => waiting,
                (None, None) => return Err(io::ErrorKind::NotFound.into()),
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(_)) => Err(io::Error::other("the pod is not served any more")),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the supervisor made no socket in the pod's namespace in time",
            )),
        }
    }

    /// Asks for more at the low-water mark, a quarter of a batch.
    fn refill(&self, pool: &mut Pool, key: &Key) {
        let low = pool.ready.len() < (pool.batch / 4) as usize || !pool.waiting.is_empty();
        if pool.asked || !low {
            return;
        }
        pool.asked = true;
        let family = match key.family {
            Family::V4 => WireFamily::Ipv4,
            Family::V6 => WireFamily::Ipv6,
        };
        self.outbox.send(from_worker::Payload::NeedSockets(NeedSockets {
            pod_uid: key.uid.clone(),
            family: family.into(),
            count: pool.batch,
            generation: key.generation,
            datagrams: key.datagrams,
        }));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// It ran dry: the next batch is larger.
    fn wait(&mut self) -> oneshot::Receiver<io::Result<OwnedFd>> {
        if self.asked {
            self.batch = (self.batch * 2).min(LARGEST_BATCH);
        }
        let (sender, receiver) = oneshot::channel();
        // Those that gave up no longer count.
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push_back(sender);
        receiver
    }

    fn serve(&mut self) {
        while let Some(socket) = self.ready.pop_front() {
            let Some(waiting) = self.waiting.pop_front() else {
                return self.ready.push_front(socket);
            };
            // Whoever waited may have given up: the socket is for the next.
            if let Err(Ok(socket)) = waiting.send(Ok(socket)) {
                self.ready.push_front(socket);
            }
        }
    }
}

/// The sockets of one pod.
#[derive(Clone, Debug)]
pub(super) struct PodDialer {
    pub(super) uid: String,
    pub(super) generation: u64,
    pub(super) pools: Arc<Pools>,
}

impl PodDialer {
    async fn take(&self, family: Family, datagrams: bool) -> io::Result<OwnedFd> {
        let key = Key {
            uid: self.uid.clone(),
            generation: self.generation,
            family,
            datagrams,
        };
        self.pools.take(key).await
    }
}

impl Dialer for PodDialer {
    fn socket(&self, family: Family) -> BoxFuture<'_, io::Result<TcpSocket>> {
        Box::pin(async move {
            let socket = self.take(family, false).await?;
            Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(socket)))
        })
    }

    fn transparent(&self) -> bool {
        true
    }
}

impl trefoil_dataplane_dns::Sockets for PodDialer {
    fn datagrams(&self, family: Family) -> BoxFuture<'_, io::Result<UdpSocket>> {
        Box::pin(async move { Ok(UdpSocket::from(self.take(family, true).await?)) })
    }
}
