//! What enrolment does to connections that a pod already has, and that nobody gets past a plane by pretending to
//! have one. In network namespaces of the tests' own. Needs root.
#![allow(clippy::unwrap_used)]

mod lab;

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lab::raw::stray_acknowledgement;
use lab::{CLIENT, CLIENT_V6, Lab, POD, POD_V6, accept, dial, dial_from, exchange, listen};
use nlink::netlink::nftables::{Field, Match, RuleSpec, Value, Verdict};
use socket2::SockRef;
use trefoil_api::proto::trefoil::v1::Plane;
use trefoil_cni::kernel::{apply, forget_unredirected, prepare};
use trefoil_cni::namespace::Namespace;
use trefoil_cni::redirection::{INBOUND, OUTBOUND, PlanePorts, PodFacts, pod_table};

const LOOSE: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose";
/// The client's address and the pod's.
const PAIRS: [(IpAddr, IpAddr); 2] = [(CLIENT, POD), (CLIENT_V6, POD_V6)];

async fn enrol(lab: &Lab, plane: Plane) {
    prepare(&lab.pod).await.unwrap();
    apply(&lab.pod, &pod_table(&PodFacts::default(), plane))
        .await
        .unwrap();
}

fn connect(from: &Namespace, to: IpAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let dialled = dial(from, to, listener.local_addr().unwrap().port()).unwrap();
    (dialled, accept(listener).unwrap().0)
}

#[tokio::test]
async fn connections_from_before_stay_where_they_are() {
    for plane in [Plane::Node, Plane::Sidecar] {
        let lab = Lab::new().await;
        let (application, outside) = (listen(&lab.pod, 80), listen(&lab.client, 80));
        let mut old = Vec::new();
        for (client, pod) in PAIRS {
            for from_pod in [false, true] {
                let pair = || match from_pod {
                    false => connect(&lab.client, pod, &application),
                    true => connect(&lab.pod, client, &outside),
                };
                old.push(pair());
                // Of this one the other end is the first to speak after enrolment.
                let (dialled, accepted) = pair();
                old.push((accepted, dialled));
            }
        }
        old.push(connect(&lab.pod, POD, &application));
        old.iter_mut().for_each(|(left, right)| exchange(left, right));
        let other = match plane {
            Plane::Node => Plane::Sidecar,
            _ => Plane::Node,
        };
        for plane in [plane, other, Plane::None, plane] {
            enrol(&lab, plane).await;
            old.iter_mut().for_each(|(left, right)| exchange(left, right));
        }
        // Also their ends pass.
        for (left, mut right) in old {
            drop(left);
            assert_eq!(right.read(&mut [0]).unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn new_connections_are_redirected_also_from_ports_that_old_ones_had() {
    for plane in [Plane::Node, Plane::Sidecar] {
        let lab = Lab::new().await;
        let (application, outside) = (listen(&lab.pod, 80), listen(&lab.client, 80));
        let mut old = Vec::new();
        for (client, pod) in PAIRS {
            for ended_by_dialler in [true, false] {
                let arriving = connect(&lab.client, pod, &application);
                old.push((&lab.client, arriving, ended_by_dialler));
                old.push((&lab.pod, connect(&lab.pod, client, &outside), ended_by_dialler));
            }
        }
        enrol(&lab, plane).await;
        let ports = PlanePorts::of(plane).unwrap();
        let inbound = listen(&lab.pod, ports.inbound);
        let outbound = listen(&lab.pod, ports.outbound);
        for (namespace, (mut left, mut right), ended_by_dialler) in old {
            exchange(&mut left, &mut right);
            let (from, to) = (left.local_addr().unwrap(), left.peer_addr().unwrap());
            let captured = match namespace.identity() == lab.pod.identity() {
                true => &outbound,
                false => &inbound,
            };
            let mut fresh = dial(namespace, to.ip(), 80).unwrap();
            exchange(&mut fresh, &mut accept(captured).unwrap().0);
            let ends = if ended_by_dialler {
                (left, right)
            } else {
                (right, left)
            };
            reset(ends.0, ends.1);
            let mut again = dial_from(namespace, from, to).unwrap();
            exchange(&mut again, &mut accept(captured).unwrap().0);
        }
    }
}

/// Ends a connection so that its port is free at once.
fn reset(end: TcpStream, mut other: TcpStream) {
    SockRef::from(&end).set_linger(Some(Duration::ZERO)).unwrap();
    drop(end);
    let ended = other.read(&mut [0]).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
}

/// Where connections arrive that begin with an acknowledgement: whether at the plane, in both directions.
fn arrive_at_plane(lab: &Lab) -> Vec<bool> {
    let ports = PlanePorts::of(Plane::Node).unwrap();
    let listeners = [
        (listen(&lab.pod, ports.inbound), listen(&lab.pod, 80)),
        (listen(&lab.pod, ports.outbound), listen(&lab.client, 80)),
    ];
    let mut found = Vec::new();
    for (client, pod) in PAIRS {
        let ways = [
            ((&lab.client, client), (&lab.pod, pod)),
            ((&lab.pod, pod), (&lab.client, client)),
        ];
        for ((from, to), (plane, direct)) in ways.into_iter().zip(&listeners) {
            let from = (from.0, SocketAddr::new(from.1, 40_000));
            let to = (to.0, SocketAddr::new(to.1, 80));
            stray_acknowledgement(from, to).unwrap();
            dial_from(from.0, from.1, to.1).unwrap();
            let arrived = [plane, direct].map(|listener| {
                listener.set_nonblocking(true).unwrap();
                match listener.accept() {
                    Ok(_) => true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                    Err(error) => panic!("{error}"),
                }
            });
            assert_ne!(arrived[0], arrived[1]);
            found.push(arrived[0]);
        }
    }
    found
}

#[tokio::test]
async fn an_acknowledgement_before_the_first_packet_leads_nobody_past_the_plane() {
    let lab = Lab::new().await;
    enrol(&lab, Plane::Node).await;
    assert_eq!(arrive_at_plane(&lab), [true; 4]);

    // The trick is a real one: it works where tracking takes connections up halfway and only SYNs are redirected.
    let lab = Lab::new().await;
    enrol(&lab, Plane::Node).await;
    lab.pod.run(|| std::fs::write(LOOSE, "1")).unwrap();
    let mut naive = pod_table(&PodFacts::default(), Plane::Node);
    for chain in &mut naive.chains {
        if [INBOUND, OUTBOUND].contains(&chain.name) {
            let no_syn = Value::Masked { value: 0, mask: 0x02 };
            let rule = RuleSpec::new().then(Match::eq(Field::TcpFlags, no_syn));
            chain.rules.insert(0, rule.then(Verdict::Return));
        }
    }
    apply(&lab.pod, &naive).await.unwrap();
    assert_eq!(arrive_at_plane(&lab), [false; 4]);
}

#[tokio::test]
async fn connections_from_a_time_without_a_plane_stay_and_lead_nobody_past_one() {
    let lab = Lab::new().await;
    enrol(&lab, Plane::None).await;
    let application = listen(&lab.pod, 80);
    for (_, pod) in PAIRS {
        enrol(&lab, Plane::None).await;
        let (mut left, mut right) = connect(&lab.client, pod, &application);
        enrol(&lab, Plane::Node).await;
        forget_unredirected(&lab.pod).await.unwrap();
        exchange(&mut left, &mut right);
        exchange(&mut right, &mut left);
        let (from, to) = (left.local_addr().unwrap(), left.peer_addr().unwrap());
        reset(right, left);
        let plane = listen(&lab.pod, 15006);
        let mut again = dial_from(&lab.client, from, to).unwrap();
        exchange(&mut again, &mut accept(&plane).unwrap().0);
    }
}
