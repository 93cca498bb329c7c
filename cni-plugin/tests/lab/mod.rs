//! Two network namespaces with a wire between them: a client's and a pod's. They end with the value.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::link::VethLink;
use nlink::netlink::route::{Ipv4Route, Ipv6Route};
use nlink::netlink::{Connection, Route, namespace};
use socket2::{Domain, SockRef, Socket, Type};
use trefoil_cni::namespace::Namespace;

pub mod raw;

/// The client's addresses.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
/// The pod's addresses.
pub const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));

/// Long enough for anything that works; only failures wait for it.
const PATIENCE: Duration = Duration::from_secs(5);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The laboratory.
pub struct Lab {
    pub client: Namespace,
    pub pod: Namespace,
    pub pod_path: PathBuf,
    names: [String; 2],
}

impl Lab {
    /// Makes both namespaces, connected, with addresses and loopback up.
    pub async fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |role| format!("trefoil-test-{}-{number}-{role}", std::process::id());
        let names = [name("client"), name("pod")];
        for name in &names {
            namespace::create(name).unwrap();
        }
        let path = |name: &str| Path::new("/run/netns").join(name);
        let client = Namespace::open(&path(&names[0])).unwrap();
        let pod = Namespace::open(&path(&names[1])).unwrap();
        let left = Connection::<Route>::new_in(client.as_fd()).unwrap();
        let right = Connection::<Route>::new_in(pod.as_fd()).unwrap();
        left.add_link(VethLink::new("eth0", "eth0").peer_netns_fd(pod.as_fd()))
            .await
            .unwrap();
        for (connection, v4, v6) in [(&left, CLIENT, CLIENT_V6), (&right, POD, POD_V6)] {
            let (IpAddr::V4(v4), IpAddr::V6(v6)) = (v4, v6) else {
                unreachable!()
            };
            connection.set_link_up("lo").await.unwrap();
            connection.set_link_up("eth0").await.unwrap();
            connection
                .add_address(Ipv4Address::new("eth0", v4, 24))
                .await
                .unwrap();
            connection
                .add_address(Ipv6Address::new("eth0", v6, 64).nodad())
                .await
                .unwrap();
        }
        Self {
            client,
            pod,
            pod_path: path(&names[1]),
            names,
        }
    }

    /// Name of the client's namespace.
    pub fn client_name(&self) -> &str {
        &self.names[0]
    }

    /// The pod's default routes lead to the client, as they lead to the host in a cluster.
    pub async fn route_to_client(&self) {
        let connection = Connection::<Route>::new_in(self.pod.as_fd()).unwrap();
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (CLIENT, CLIENT_V6) else {
            unreachable!()
        };
        connection
            .add_route(Ipv4Route::from_addr(Ipv4Addr::UNSPECIFIED, 0).gateway(v4))
            .await
            .unwrap();
        connection
            .add_route(Ipv6Route::from_addr(Ipv6Addr::UNSPECIFIED, 0).gateway(v6))
            .await
            .unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            namespace::delete(name).ok();
        }
    }
}

/// Listens in a namespace on both families.
pub fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    namespace
        .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
        .unwrap()
}

/// Dials from a namespace.
pub fn dial(namespace: &Namespace, address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let stream = namespace.run(|| TcpStream::connect_timeout(&(address, port).into(), PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Dials from an address and port of a namespace.
pub fn dial_from(namespace: &Namespace, source: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    namespace.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// The next connection of a listener, or an error when none comes.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    SockRef::from(listener).set_read_timeout(Some(PATIENCE))?;
    let (stream, peer) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    Ok((stream, peer))
}

/// Where the client of a redirected connection meant to go.
pub fn original_destination(stream: &TcpStream, v6: bool) -> SocketAddr {
    let socket = SockRef::from(stream);
    let address = if v6 {
        socket.original_dst_v6()
    } else {
        socket.original_dst_v4()
    };
    address.unwrap().as_socket().unwrap()
}

/// Bytes go both ways.
pub fn exchange(left: &mut TcpStream, right: &mut TcpStream) {
    let mut buffer = [0; 4];
    left.write_all(b"ping").unwrap();
    right.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");
    right.write_all(b"pong").unwrap();
    left.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"pong");
}

/// Dials the pod as the node proxy does: marked, from the client's own address. The port is a fresh one: with
/// the client's own, connection tracking could not tell it from the client's captured connection.
pub fn dial_preserving(namespace: &Namespace, source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    namespace.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_mark(0x539)?;
        if to.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else {
            socket.set_ip_transparent_v6(true)?;
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}
