//! Sockets of a pod's namespace: listeners, and unconnected ones to dial with. Every one carries the node
//! proxy's mark. To be called within the namespace; nothing here enters one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use trefoil_api::names::{mark, port};
use trefoil_api::proto::trefoil::worker::Family;

/// A socket that waits for what comes to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// For connections.
    Stream(u16),
    /// For datagrams.
    Datagrams(u16),
}

/// Every such socket, in the order in which workers get them.
pub(crate) const ALL: [Listener; 5] = [
    Listener::Stream(port::OUTBOUND),
    Listener::Stream(port::INBOUND),
    Listener::Stream(port::HBONE),
    Listener::Stream(port::DNS),
    Listener::Datagrams(port::DNS),
];

/// Connections that may wait while no worker accepts. The namespace's `somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

impl Listener {
    /// Its port.
    #[must_use]
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Stream(port) | Self::Datagrams(port) => port,
        }
    }

    /// Whether a pod is not served without it. Names are found without a plane too: a pod is not refused because its
    /// application has that port.
    #[must_use]
    pub(crate) fn is_needed(self) -> bool {
        self.port() != port::DNS
    }

    /// Opens it on every address, of both families where the namespace has both.
    pub(crate) fn open(self) -> io::Result<OwnedFd> {
        let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port()));
        match self.open_at(dual) {
            Err(error) if without_ipv6(&error) => {
                self.open_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port())))
            }
            result => result,
        }
    }

    fn open_at(self, address: SocketAddr) -> io::Result<OwnedFd> {
        let domain = Domain::for_address(address);
        let socket = match self {
            Self::Stream(_) => marked(domain)?,
            Self::Datagrams(_) => marked_datagrams(domain)?,
        };
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        if let Self::Stream(_) = self {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        if let Self::Stream(_) = self {
            socket.listen(BACKLOG)?;
        }
        Ok(socket.into())
    }

    /// Whether a descriptor is this: what came back from the descriptor store is checked before it is served.
    #[must_use]
    pub(crate) fn is(self, descriptor: &OwnedFd) -> bool {
        let descriptor = descriptor.as_fd();
        let socket = SockRef::from(&descriptor);
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        let kind = match self {
            Self::Stream(_) => socket.is_listener().unwrap_or(false),
            Self::Datagrams(_) => socket.r#type().is_ok_and(|kind| kind == Type::DGRAM),
        };
        kind && address.is_some_and(|address| address.port() == self.port())
    }
}

/// A socket to ask resolvers with from the namespace.
pub(crate) fn asking(family: Family) -> io::Result<OwnedFd> {
    let socket = match family {
        Family::Ipv4 => marked_datagrams(Domain::IPV4)?,
        Family::Ipv6 => marked_datagrams(Domain::IPV6)?,
        Family::Unspecified => return Err(io::Error::other("no address family named")),
    };
    Ok(socket.into())
}

/// A socket to dial with from the namespace, also from an address that is not the namespace's own.
pub(crate) fn dialing(family: Family) -> io::Result<OwnedFd> {
    let socket = match family {
        Family::Ipv4 => {
            let socket = marked(Domain::IPV4)?;
            socket.set_ip_transparent_v4(true)?;
            socket.set_freebind_v4(true)?;
            socket
        }
        Family::Ipv6 => {
            let socket = marked(Domain::IPV6)?;
            socket.set_only_v6(true)?;
            socket.set_ip_transparent_v6(true)?;
            socket.set_freebind_v6(true)?;
            socket
        }
        Family::Unspecified => return Err(io::Error::other("no address family named")),
    };
    Ok(socket.into())
}

fn marked(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_mark(mark::PROXY)?;
    Ok(socket)
}

fn marked_datagrams(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_mark(mark::PROXY)?;
    Ok(socket)
}

fn without_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errors = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    errors
        .iter()
        .any(|known| error.raw_os_error() == Some(known.raw_os_error()))
}
