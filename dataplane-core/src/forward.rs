//! Bytes from one side to the other and back, until both have ended. An end is carried as an end (FIN ⇄
//! END_STREAM), a reset as a reset (RST ⇄ RST_STREAM); nothing is read that the other side cannot soon take,
//! and a connection that says nothing holds no buffer. It decides nothing, and never waits for one side
//! before serving the other.

mod direction;
mod listen;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod tunnel;

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::telemetry::Series;
use direction::Direction;
pub use listen::{Heard, listen};
pub use stream::{DENIED, SideBytes, TunnelBytes, UNREACHED};
pub use tunnel::{Lease, TunnelStream, poll_room};

/// Bytes carried, by direction.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the client to the server.
    pub received: AtomicU64,
    /// From the server to the client.
    pub sent: AtomicU64,
    totals: [OnceLock<Arc<Series>>; 2],
}

#[derive(Clone, Copy)]
enum Towards {
    Server,
    Client,
}

impl Counters {
    /// Adds to totals too, from now on. Holds for two: the reporters of both ends may be here.
    pub fn total_in(&self, series: Arc<Series>) {
        for total in &self.totals {
            if total.get().is_none() {
                // Only one task sets it.
                let _ = total.set(series);
                return;
            }
        }
    }

    /// So many bytes came from the client.
    pub fn received(&self, count: usize) {
        self.add(Towards::Server, count);
    }

    /// So many bytes came from the server.
    pub fn sent(&self, count: usize) {
        self.add(Towards::Client, count);
    }

    fn add(&self, towards: Towards, count: usize) {
        let (own, of): (_, fn(&Series) -> &AtomicU64) = match towards {
            Towards::Server => (&self.received, |series| &series.received),
            Towards::Client => (&self.sent, |series| &series.sent),
        };
        own.fetch_add(count as u64, Ordering::Relaxed);
        for total in self.totals.iter().filter_map(OnceLock::get) {
            of(total).fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// (from the client, from the server).
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (
            self.received.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }
}

/// What one side is.
#[derive(Debug)]
pub enum Side {
    /// A socket.
    Tcp(TcpStream),
    /// A stream of a tunnel.
    Tunnel(TunnelStream),
}

/// A side of which something was read already.
#[derive(Debug)]
pub struct Begun {
    /// The rest.
    pub side: Side,
    /// What was read.
    pub read: Bytes,
}

impl From<Side> for Begun {
    fn from(side: Side) -> Self {
        let read = Bytes::new();
        Self { side, read }
    }
}

/// How one side broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The socket failed: as a rule its other end has reset it.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// The stream was reset, or its tunnel is gone.
    #[error("{0}")]
    Tunnel(#[from] h2::Error),
}

/// Why forwarding ended before both sides had ended.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The client's side broke; the server's was reset.
    #[error("client: {0}")]
    Client(#[source] Broken),
    /// The server's side broke; the client's was reset.
    #[error("server: {0}")]
    Server(#[source] Broken),
}

/// What bytes come from.
trait Reader {
    /// The next bytes; none once the side has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>>;
    /// That many bytes were taken by the other side.
    fn taken(&mut self, count: usize) -> Result<(), Broken>;
    /// Resolves if the side breaks while nothing is being read from it.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;
}

/// What bytes go to.
trait Writer {
    /// Takes bytes off `chunk`; ready when it is empty.
    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>>;
    /// Says that nothing follows.
    fn finish(&mut self) -> Result<(), Broken>;
    /// Resolves if the side breaks while nothing is being written to it.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;
}

/// Both sides. Unless both have ended, neither may look as if it had.
struct Sides {
    client: Side,
    server: Side,
    ended: bool,
}

impl Drop for Sides {
    fn drop(&mut self) {
        if !self.ended {
            self.client.reset();
            self.server.reset();
        }
    }
}

/// Carries bytes both ways until both sides have ended. If one breaks, or this is dropped before, both are
/// reset.
pub async fn forward(
    client: impl Into<Begun>,
    server: Side,
    counters: &Counters,
) -> Result<(), ForwardError> {
    let Begun { side, read } = client.into();
    let mut sides = Sides {
        client: side,
        server,
        ended: false,
    };
    let result = match (&mut sides.client, &mut sides.server) {
        (Side::Tcp(client), Side::Tcp(server)) => {
            carry(tcp::halves(client), tcp::halves(server), read, counters).await
        }
        (Side::Tcp(client), Side::Tunnel(server)) => {
            carry(tcp::halves(client), server.halves(), read, counters).await
        }
        (Side::Tunnel(client), Side::Tcp(server)) => {
            carry(client.halves(), tcp::halves(server), read, counters).await
        }
        (Side::Tunnel(client), Side::Tunnel(server)) => {
            carry(client.halves(), server.halves(), read, counters).await
        }
    };
    sides.ended = result.is_ok();
    result
}

async fn carry(
    (from_client, to_client): (impl Reader, impl Writer),
    (from_server, to_server): (impl Reader, impl Writer),
    read: Bytes,
    counters: &Counters,
) -> Result<(), ForwardError> {
    let mut request = Direction::new(from_client, to_server, counters, Towards::Server).behind(read);
    let mut response = Direction::new(from_server, to_client, counters, Towards::Client);
    poll_fn(|cx| {
        let requested = request.poll(cx).map_err(|end| match end {
            direction::Broke::Reader(broken) => ForwardError::Client(broken),
            direction::Broke::Writer(broken) => ForwardError::Server(broken),
        })?;
        let responded = response.poll(cx).map_err(|end| match end {
            direction::Broke::Reader(broken) => ForwardError::Server(broken),
            direction::Broke::Writer(broken) => ForwardError::Client(broken),
        })?;
        match (requested, responded) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}

impl Side {
    /// Ends the side so that its other end sees a reset.
    pub fn reset(&mut self) {
        self.reset_for(h2::Reason::CONNECT_ERROR);
    }

    /// The same, which a plane at the other end is told the reason of.
    pub fn reset_for(&mut self, reason: h2::Reason) {
        match self {
            Self::Tcp(stream) => {
                // Fails only where there is no connection left to reset.
                let _ = stream.set_zero_linger();
            }
            Self::Tunnel(stream) => stream.reset(reason),
        }
    }
}
