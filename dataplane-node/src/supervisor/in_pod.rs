//! Sockets of a pod's namespace: listeners, and unconnected ones to dial with. Every one carries the node
//! proxy's mark. To be called within the namespace; nothing here enters one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use trefoil_api::names::{mark, port};
use trefoil_api::proto::trefoil::worker::Family;

/// What the node proxy listens on in every pod, in the order in which workers get them.
pub(crate) const LISTENERS: [u16; 3] = [port::OUTBOUND, port::INBOUND, port::HBONE];

/// Connections that may wait while no worker accepts. The namespace's `somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// A listener on a port of every address, of both families where the namespace has both.
pub(crate) fn listen(port: u16) -> io::Result<OwnedFd> {
    let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match listen_at(dual) {
        Err(error) if without_ipv6(&error) => listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        result => result,
    }
}

fn listen_at(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = marked(Domain::for_address(address))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
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

/// Whether a descriptor is a listener on this port: what came back from the descriptor store is checked
/// before it is served.
#[must_use]
pub(crate) fn is_listener_on(descriptor: &OwnedFd, port: u16) -> bool {
    let descriptor = descriptor.as_fd();
    let socket = SockRef::from(&descriptor);
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    socket.is_listener().unwrap_or(false) && address.is_some_and(|address| address.port() == port)
}

fn marked(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
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
