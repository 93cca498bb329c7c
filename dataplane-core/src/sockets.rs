//! The one gate to sockets: new ones in a workload's namespace, where an accepted one was really going, and
//! the options that every one has. It decides nothing about who may connect where.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures::future::BoxFuture;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

#[cfg(test)]
mod tests;

/// How long a connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which the kernel probes an established connection, and between probes.
const KEEPALIVE: Duration = Duration::from_secs(180);

/// Connection attempts that may queue at a listener: all those made while its process is replaced.
const BACKLOG: i32 = 4096;

/// The family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family that an address is reached by. An IPv4 address mapped into IPv6 is IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Where the sockets of one workload come from.
pub trait Dialer: Send + Sync + 'static {
    /// A fresh unconnected socket in the workload's namespace, exempt from its redirection.
    fn socket(&self, family: Family) -> BoxFuture<'_, io::Result<TcpSocket>>;

    /// Whether such a socket may be bound to an address that is not the workload's: the client's.
    fn transparent(&self) -> bool;

    /// Where an accepted connection was going before it was redirected.
    fn original_destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        original_destination(accepted)
    }
}

/// Sockets of the namespace that this process itself is in: a sidecar's, exempt by its user id.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnNamespace;

impl Dialer for OwnNamespace {
    fn socket(&self, family: Family) -> BoxFuture<'_, io::Result<TcpSocket>> {
        Box::pin(async move {
            match family {
                Family::V4 => TcpSocket::new_v4(),
                Family::V6 => TcpSocket::new_v6(),
            }
        })
    }

    fn transparent(&self) -> bool {
        false
    }
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No socket could be had.
    #[error("no socket in the workload's namespace: {0}")]
    Socket(#[source] io::Error),
    /// The other end, or the way to it, refused.
    #[error("connecting to {address}: {source}")]
    Refused {
        /// The other end.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing answered.
    #[error("connecting to {0}: no answer in 10 s")]
    TimedOut(SocketAddr),
}

/// Connects from the namespace of `dialer`, keeping the address `source` where that is possible.
pub async fn connect(
    dialer: &dyn Dialer,
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, ConnectError> {
    let family = Family::of(address.ip());
    let socket = dialer.socket(family).await.map_err(ConnectError::Socket)?;
    options(&socket).map_err(ConnectError::Socket)?;
    let kept = source
        .map(|source| source.to_canonical())
        .filter(|source| dialer.transparent() && Family::of(*source) == family && *source != address.ip());
    if let Some(source) = kept {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(ConnectError::Socket)?;
    }
    match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(ConnectError::Refused { address, source }),
        Err(_) => Err(ConnectError::TimedOut(address)),
    }
}

/// Sets what every carried connection has: no delay of small writes, and probes that notice a dead peer.
/// Sockets accepted from a listener inherit its options.
pub fn options<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// A listener on a port of every address, of both families where there is IPv6.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    listener(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
        .or_else(|_| listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)))
}

/// A listener on one address; `[::]` takes IPv4 too.
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    options(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Where a redirected connection was going (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`); of one that was not
/// redirected, the address that it came to. IPv4 addresses mapped into IPv6 are given as IPv4.
pub fn original_destination(accepted: &TcpStream) -> io::Result<SocketAddr> {
    let local = canonical(accepted.local_addr()?);
    let socket = SockRef::from(accepted);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match original.map(|address| address.as_socket()) {
        Ok(Some(address)) => Ok(canonical(address)),
        // Not tracked, or no tracking in this kernel: nothing rewrote it.
        Ok(None) => Ok(local),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => Ok(local),
        Err(error) => Err(error),
    }
}

/// The address, as IPv4 if it is IPv4 mapped into IPv6.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Closes a connection so that its other end sees a reset, not an orderly end.
pub fn reset(stream: TcpStream) {
    // Fails only where there is no connection left to reset.
    let _ = stream.set_zero_linger();
}
