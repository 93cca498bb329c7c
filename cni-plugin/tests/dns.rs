//! What the kernel does with DNS queries, while a plane answers and when it does not. Needs root.
#![allow(clippy::unwrap_used)]

mod lab;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use lab::{CLIENT, CLIENT_V6, Lab, POD, accept, dial, exchange, listen, original_destination};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt::Ipv6RecvPacketInfo,
};
use socket2::SockRef;
use trefoil_api::proto::trefoil::v1::Plane;
use trefoil_cni::kernel::{apply, prepare};
use trefoil_cni::namespace::Namespace;
use trefoil_cni::redirection::{PodFacts, pod_table};

const PLANE: u16 = 15053;
/// Long enough for anything that arrives.
const ARRIVAL: Duration = Duration::from_secs(1);

async fn captured() -> Lab {
    let lab = Lab::new().await;
    let facts = PodFacts {
        captures_dns: true,
        ..PodFacts::default()
    };
    prepare(&lab.pod).await.unwrap();
    apply(&lab.pod, &pod_table(&facts, Plane::Node)).await.unwrap();
    assert!(!apply(&lab.pod, &pod_table(&facts, Plane::Node)).await.unwrap());
    lab
}

fn datagrams(namespace: &Namespace, port: u16) -> UdpSocket {
    let socket = namespace
        .run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
        .unwrap();
    socket.set_read_timeout(Some(ARRIVAL)).unwrap();
    socket
}

/// A socket as the node proxy has it.
fn plane(namespace: &Namespace) -> UdpSocket {
    let socket = datagrams(namespace, PLANE);
    SockRef::from(&socket).set_mark(0x539).unwrap();
    setsockopt(&socket, Ipv6RecvPacketInfo, &true).unwrap();
    socket
}

fn pulse(socket: &UdpSocket) {
    socket.send_to(&[], ("::ffff:127.0.0.1", PLANE)).unwrap();
    assert_eq!(received(socket).unwrap().0, b"");
}

/// What came, from whom, and to whom it was sent.
fn received(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr, IpAddr)> {
    let mut bytes = [0; 512];
    let mut space = nix::cmsg_space!(nix::libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let destination = message.cmsgs()?.find_map(|one| match one {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let from = message.address.unwrap();
    let from = SocketAddr::from(std::net::SocketAddrV6::from(*from.as_sockaddr_in6().unwrap()));
    let length = message.bytes;
    let destination = IpAddr::from(destination.unwrap()).to_canonical();
    Ok((bytes[..length].to_vec(), from, destination))
}

/// A client's socket, connected to a resolver as a stub resolver's is.
fn client(lab: &Lab, resolver: IpAddr) -> UdpSocket {
    lab.pod
        .run(|| {
            let any = if resolver.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect((resolver, 53))?;
            socket.set_read_timeout(Some(ARRIVAL))?;
            Ok(socket)
        })
        .unwrap()
}

fn answered(client: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 512];
    let length = client.recv(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

#[tokio::test]
async fn queries_pass_by_a_plane_that_never_said_that_it_answers() {
    let lab = captured().await;
    let _silent = plane(&lab.pod);
    let resolver = datagrams(&lab.client, 53);
    for address in [CLIENT, CLIENT_V6] {
        client(&lab, address).send(b"query").unwrap();
        let mut bytes = [0; 512];
        assert_eq!(resolver.recv(&mut bytes).unwrap(), 5);
    }
    let tcp = listen(&lab.client, 53);
    let mut dialled = dial(&lab.pod, CLIENT, 53).unwrap();
    exchange(&mut dialled, &mut accept(&tcp).unwrap().0);
}

#[tokio::test]
async fn queries_reach_a_plane_that_answers_and_say_whom_they_were_for() {
    let lab = captured().await;
    let plane = plane(&lab.pod);
    pulse(&plane);
    for (resolver, own) in [(CLIENT, "::ffff:127.0.0.1"), (CLIENT_V6, "::1")] {
        let client = client(&lab, resolver);
        client.send(b"query").unwrap();
        let (bytes, from, to) = received(&plane).unwrap();
        assert_eq!((bytes.as_slice(), to), (&b"query"[..], resolver));
        reply(&plane, from, own.parse().unwrap());
        assert_eq!(answered(&client), b"answer");
    }
    let tcp = listen(&lab.pod, PLANE);
    let mut dialled = dial(&lab.pod, CLIENT, 53).unwrap();
    let (mut accepted, _) = accept(&tcp).unwrap();
    assert_eq!(
        original_destination(&accepted, false),
        SocketAddr::new(CLIENT, 53)
    );
    exchange(&mut dialled, &mut accepted);
}

fn reply(plane: &UdpSocket, to: SocketAddr, own: Ipv6Addr) {
    use nix::sys::socket::{ControlMessage, SockaddrIn6, sendmsg};
    let SocketAddr::V6(to) = to else { unreachable!() };
    let info = nix::libc::in6_pktinfo {
        ipi6_addr: nix::libc::in6_addr {
            s6_addr: own.octets(),
        },
        ipi6_ifindex: 0,
    };
    sendmsg(
        plane.as_raw_fd(),
        &[io::IoSlice::new(b"answer")],
        &[ControlMessage::Ipv6PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&SockaddrIn6::from(to)),
    )
    .unwrap();
}

/// A plane that neither reads nor says anything more.
#[tokio::test]
async fn a_plane_that_falls_silent_is_passed_by_also_by_what_is_repeated() {
    let lab = captured().await;
    let plane = plane(&lab.pod);
    for address in [CLIENT, CLIENT_V6] {
        pulse(&plane);
        let client = client(&lab, address);
        client.send(b"query").unwrap();
        assert_eq!(received(&plane).unwrap().0, b"query");
        passes_by(&lab, &client);
        // It comes back, and has the queries again.
        while received(&plane).is_ok() {}
        pulse(&plane);
        client.send(b"later").unwrap();
        assert_eq!(received(&plane).unwrap().0, b"later");
    }
}

#[tokio::test]
async fn a_plane_that_is_gone_is_passed_by() {
    let lab = captured().await;
    for address in [CLIENT, CLIENT_V6] {
        let plane = plane(&lab.pod);
        pulse(&plane);
        drop(plane);
        passes_by(&lab, &client(&lab, address));
    }
}

/// Repeats a query until the resolver has it, for a little longer than a plane may be silent.
fn passes_by(lab: &Lab, client: &UdpSocket) {
    let resolver = datagrams(&lab.client, 53);
    resolver.set_read_timeout(Some(ARRIVAL / 5)).unwrap();
    let started = Instant::now();
    let mut bytes = [0; 512];
    let from = loop {
        client.send(b"again").unwrap();
        if let Ok((length, from)) = resolver.recv_from(&mut bytes) {
            assert_eq!(&bytes[..length], b"again");
            break from;
        }
        assert!(started.elapsed() < Duration::from_secs(3), "never passed by");
    };
    resolver.send_to(b"answer", from).unwrap();
    assert_eq!(answered(client), b"answer");
}

#[tokio::test]
async fn only_the_plane_says_that_it_answers_and_only_redirected_queries_reach_it() {
    let lab = captured().await;
    let resolver = datagrams(&lab.client, 53);
    let impostor = datagrams(&lab.pod, PLANE);
    impostor.send_to(&[], ("::ffff:127.0.0.1", PLANE)).unwrap();
    client(&lab, CLIENT).send(b"query").unwrap();
    let mut bytes = [0; 512];
    assert_eq!(resolver.recv(&mut bytes).unwrap(), 5);
    drop(impostor);
    let plane = plane(&lab.pod);
    let stranger = datagrams(&lab.client, 0);
    stranger.send_to(b"query", ("::ffff:10.77.0.2", PLANE)).unwrap();
    let silence = received(&plane).unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock, "from outside to {POD}");
    // A client that went before it was answered is no sign against the plane.
    pulse(&plane);
    let gone = client(&lab, CLIENT);
    gone.send(b"query").unwrap();
    let (_, from, _) = received(&plane).unwrap();
    drop(gone);
    reply(&plane, from, "::ffff:127.0.0.1".parse().unwrap());
    client(&lab, CLIENT).send(b"next").unwrap();
    assert_eq!(received(&plane).unwrap().0, b"next");
}
