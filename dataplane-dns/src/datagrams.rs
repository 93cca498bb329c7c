//! A socket of datagrams that says whom each was for. The pod's rules put the resolver that was asked into the
//! destination; responses leave from loopback, where redirection had led the query, and are translated back.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
    sendmsg, setsockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use trefoil_dataplane_core::sockets::{Family, canonical};

/// Index of `lo` in every namespace.
const LOOPBACK: u32 = 1;
/// Queries that wait while the process is replaced, in bytes.
const WAITING: usize = 1 << 20;

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) length: usize,
    pub(crate) from: SocketAddr,
    /// Whom it was for; none where nobody redirected it.
    pub(crate) resolver: Option<IpAddr>,
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: tokio::net::UdpSocket,
    port: u16,
    v6: bool,
}

/// A socket on a port of every address, of both families where there is IPv6.
pub fn listen(port: u16) -> io::Result<UdpSocket> {
    listen_at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
}

fn listen_at(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket that is bound to nothing.
pub fn fresh(family: Family) -> io::Result<UdpSocket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Datagrams {
    /// Takes a socket that is bound.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        }
        // As much as the system grants.
        socket2::SockRef::from(&socket).set_recv_buffer_size(WAITING)?;
        Ok(Self {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            port: address.port(),
            v6: address.is_ipv6(),
        })
    }

    /// Says to the pod's rules that queries are answered.
    pub(crate) async fn pulse(&self) -> io::Result<()> {
        self.send(&[], SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
            .await
    }

    /// Whether a datagram is a pulse of this socket, or of another process that has it too.
    pub(crate) fn is_pulse(&self, arrival: &Arrival) -> bool {
        arrival.length == 0 && arrival.from.ip().is_loopback() && arrival.from.port() == self.port
    }

    /// The next datagram, in `buffer`.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Arrival> {
        let read = || receive(&self.socket, buffer);
        self.socket.async_io(Interest::READABLE, read).await
    }

    /// Responds to whoever sent a datagram.
    pub(crate) async fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let write = || send(&self.socket, bytes, to, self.v6);
        self.socket.async_io(Interest::WRITABLE, write).await
    }
}

fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Arrival> {
    let mut space = nix::cmsg_space!(in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let address = message.address.as_ref();
    let v4 = || Some(SocketAddr::V4(SocketAddrV4::from(*address?.as_sockaddr_in()?)));
    let v6 = || Some(SocketAddr::V6(SocketAddrV6::from(*address?.as_sockaddr_in6()?)));
    let from = v4().or_else(v6).ok_or(io::ErrorKind::InvalidData)?;
    let resolver = message.cmsgs()?.find_map(|one| match one {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let address = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
            redirected(u32::try_from(info.ipi_ifindex).ok()?, address.into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            redirected(info.ipi6_ifindex, address.into())
        }
        _ => None,
    });
    Ok(Arrival {
        length: message.bytes,
        from: canonical(from),
        resolver,
    })
}

/// Only over loopback does redirection lead here, and only others' addresses.
fn redirected(interface: u32, destination: IpAddr) -> Option<IpAddr> {
    let destination = destination.to_canonical();
    (interface == LOOPBACK && !destination.is_loopback()).then_some(destination)
}

fn send(socket: &impl AsRawFd, bytes: &[u8], to: SocketAddr, v6: bool) -> io::Result<()> {
    let parts = [IoSlice::new(bytes)];
    let (socket, flags) = (socket.as_raw_fd(), MsgFlags::empty());
    match to {
        SocketAddr::V4(to) if !v6 => {
            let own = in_addr {
                s_addr: u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()),
            };
            let source = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: own,
                ipi_addr: own,
            };
            let control = [ControlMessage::Ipv4PacketInfo(&source)];
            sendmsg(socket, &parts, &control, flags, Some(&SockaddrIn::from(to)))?;
        }
        to => {
            let (to, own) = match to {
                SocketAddr::V4(to) => {
                    let mapped = to.ip().to_ipv6_mapped();
                    (
                        SocketAddrV6::new(mapped, to.port(), 0, 0),
                        Ipv4Addr::LOCALHOST.to_ipv6_mapped(),
                    )
                }
                SocketAddr::V6(to) => (to, Ipv6Addr::LOCALHOST),
            };
            let source = in6_pktinfo {
                ipi6_addr: in6_addr {
                    s6_addr: own.octets(),
                },
                ipi6_ifindex: 0,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&source)];
            sendmsg(socket, &parts, &control, flags, Some(&SockaddrIn6::from(to)))?;
        }
    }
    Ok(())
}
