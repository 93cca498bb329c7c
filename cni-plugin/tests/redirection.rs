//! What the kernel does with the rules, in network namespaces of the tests' own. Needs root.
#![allow(clippy::unwrap_used)]

mod lab;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;

use lab::{
    CLIENT, CLIENT_V6, Lab, POD, POD_V6, accept, dial, dial_preserving, exchange, listen,
    original_destination,
};
use trefoil_api::names::probe;
use trefoil_api::proto::trefoil::v1::Plane;
use trefoil_cni::kernel::{apply, inspect, prepare};
use trefoil_cni::redirection::host::host_table;
use trefoil_cni::redirection::{PodFacts, pod_table};

async fn redirect(lab: &Lab, facts: &PodFacts, plane: Plane) {
    prepare(&lab.pod).await.unwrap();
    apply(&lab.pod, &pod_table(facts, plane)).await.unwrap();
}

async fn enrolled(plane: Plane) -> Lab {
    let lab = Lab::new().await;
    redirect(&lab, &PodFacts::default(), plane).await;
    lab
}

#[tokio::test]
async fn what_is_installed_is_read_back_and_not_installed_again() {
    let lab = Lab::new().await;
    let before = inspect(&lab.pod).await.unwrap();
    assert_eq!((before.plane, before.enrolled), (Plane::None, false));
    let facts = PodFacts {
        has_sidecar: true,
        captures_dns: true,
        excluded_inbound: [9100].into(),
        excluded_outbound: [25].into(),
        excluded_destinations: ["10.9.0.0/16".parse().unwrap(), "::/0".parse().unwrap()].into(),
        probe_ports: [8080].into(),
    };
    for plane in [Plane::None, Plane::Node, Plane::Sidecar, Plane::Node, Plane::None] {
        redirect(&lab, &facts, plane).await;
        let now = inspect(&lab.pod).await.unwrap();
        assert_eq!((now.plane, now.enrolled), (plane, true));
        prepare(&lab.pod).await.unwrap();
        assert!(
            !apply(&lab.pod, &pod_table(&facts, plane)).await.unwrap(),
            "nothing to do the second time"
        );
    }
}

#[tokio::test]
async fn outbound_connections_reach_the_plane_with_their_destination() {
    let lab = enrolled(Plane::Node).await;
    let plane = listen(&lab.pod, 15001);
    for (address, v6) in [(CLIENT, false), (CLIENT_V6, true)] {
        let mut dialled = dial(&lab.pod, address, 80).unwrap();
        let (mut accepted, _) = accept(&plane).unwrap();
        assert_eq!(original_destination(&accepted, v6), SocketAddr::new(address, 80));
        exchange(&mut dialled, &mut accepted);
    }
}

#[tokio::test]
async fn inbound_connections_reach_the_plane_with_their_destination() {
    let lab = enrolled(Plane::Node).await;
    let plane = listen(&lab.pod, 15006);
    for (address, source, v6) in [(POD, CLIENT, false), (POD_V6, CLIENT_V6, true)] {
        let mut dialled = dial(&lab.client, address, 80).unwrap();
        let (mut accepted, peer) = accept(&plane).unwrap();
        assert_eq!(peer.ip(), source);
        assert_eq!(original_destination(&accepted, v6), SocketAddr::new(address, 80));
        exchange(&mut dialled, &mut accepted);
    }
}

#[tokio::test]
async fn tunnels_arrive_where_the_plane_listens() {
    let lab = enrolled(Plane::Node).await;
    let node = listen(&lab.pod, 15008);
    let sidecar = listen(&lab.pod, 15108);
    dial(&lab.client, POD, 15008).unwrap();
    accept(&node).unwrap();
    redirect(&lab, &PodFacts::default(), Plane::Sidecar).await;
    for address in [POD, POD_V6] {
        dial(&lab.client, address, 15008).unwrap();
        accept(&sidecar).unwrap();
    }
}

#[tokio::test]
async fn a_switch_moves_new_connections_and_keeps_established_ones() {
    let lab = enrolled(Plane::Node).await;
    let planes = [(Plane::Node, 15001, 15006), (Plane::Sidecar, 15101, 15106)];
    let listeners = planes
        .map(|(plane, outbound, inbound)| (plane, listen(&lab.pod, outbound), listen(&lab.pod, inbound)));
    let tunnels = (listen(&lab.pod, 15008), listen(&lab.pod, 15108));
    let mut old_tunnel = (
        dial(&lab.client, POD, 15008).unwrap(),
        accept(&tunnels.0).unwrap().0,
    );
    let mut established = Vec::new();
    for round in 0..6 {
        let (plane, outbound, inbound) = &listeners[round % 2];
        redirect(&lab, &PodFacts::default(), *plane).await;
        let out = dial(&lab.pod, CLIENT, 80).unwrap();
        established.push((out, accept(outbound).unwrap().0));
        let arriving = dial(&lab.client, POD, 80).unwrap();
        established.push((arriving, accept(inbound).unwrap().0));
        for (left, right) in &mut established {
            exchange(left, right);
        }
        exchange(&mut old_tunnel.0, &mut old_tunnel.1);
    }
    redirect(&lab, &PodFacts::default(), Plane::None).await;
    for (left, right) in &mut established {
        exchange(left, right);
    }
    let application = listen(&lab.pod, 80);
    dial(&lab.client, POD, 80).unwrap();
    accept(&application).unwrap();
}

#[tokio::test]
async fn loopback_and_calls_to_oneself_are_left_alone() {
    for plane in [Plane::Node, Plane::Sidecar] {
        let lab = enrolled(plane).await;
        let application = listen(&lab.pod, 80);
        let loopback: [IpAddr; 4] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap(), POD, POD_V6];
        for address in loopback {
            let mut dialled = dial(&lab.pod, address, 80).unwrap();
            let (mut accepted, _) = accept(&application).unwrap();
            exchange(&mut dialled, &mut accepted);
        }
    }
}

#[tokio::test]
async fn excluded_ports_and_destinations_are_left_alone() {
    let lab = Lab::new().await;
    let facts = PodFacts {
        excluded_inbound: [9100].into(),
        excluded_outbound: [25].into(),
        excluded_destinations: ["fd77::1/128".parse().unwrap()].into(),
        ..PodFacts::default()
    };
    redirect(&lab, &facts, Plane::Node).await;
    let inbound = listen(&lab.pod, 9100);
    dial(&lab.client, POD, 9100).unwrap();
    assert_eq!(accept(&inbound).unwrap().1.ip(), CLIENT);
    let outbound = listen(&lab.client, 25);
    dial(&lab.pod, CLIENT, 25).unwrap();
    assert_eq!(accept(&outbound).unwrap().1.ip(), POD);
    let web = listen(&lab.client, 80);
    dial(&lab.pod, CLIENT_V6, 80).unwrap();
    assert_eq!(accept(&web).unwrap().1.ip(), POD_V6);
    assert_eq!(
        dial(&lab.pod, CLIENT, 80).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[tokio::test]
async fn nobody_dials_a_plane_directly() {
    for plane in [Plane::None, Plane::Node, Plane::Sidecar] {
        let lab = enrolled(plane).await;
        for port in [15001, 15006, 15053, 15101, 15106, 15108, 15153] {
            let _listener = listen(&lab.pod, port);
            for (from, address) in [(&lab.client, POD), (&lab.client, POD_V6), (&lab.pod, POD)] {
                let refused = dial(from, address, port).map(drop).unwrap_err();
                assert_eq!(
                    refused.kind(),
                    ErrorKind::ConnectionRefused,
                    "{plane:?} {port} {address}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_clients_address_is_kept_towards_the_application() {
    let lab = enrolled(Plane::Node).await;
    let plane = listen(&lab.pod, 15006);
    let application = listen(&lab.pod, 80);
    for address in [POD, POD_V6] {
        let mut dialled = dial(&lab.client, address, 80).unwrap();
        let (mut captured, client) = accept(&plane).unwrap();
        let to = SocketAddr::new(address, 80);
        let mut upstream = dial_preserving(&lab.pod, client.ip(), to).unwrap();
        let (mut served, seen) = accept(&application).unwrap();
        assert_eq!(seen.ip(), client.ip());
        exchange(&mut upstream, &mut served);
        exchange(&mut dialled, &mut captured);
        // The rules that keep it stay through switches.
        redirect(&lab, &PodFacts::default(), Plane::None).await;
        exchange(&mut upstream, &mut served);
        redirect(&lab, &PodFacts::default(), Plane::Node).await;
        exchange(&mut upstream, &mut served);
    }
}

#[tokio::test]
async fn probes_pass_to_declared_ports_only() {
    let lab = Lab::new().await;
    let facts = PodFacts {
        probe_ports: [8080].into(),
        ..PodFacts::default()
    };
    redirect(&lab, &facts, Plane::Node).await;
    let host = host_table(0, &[POD, POD_V6].into());
    apply(&lab.client, &host).await.unwrap();
    assert!(
        !apply(&lab.client, &host).await.unwrap(),
        "nothing to do the second time"
    );
    lab.route_to_client().await;
    let application = listen(&lab.pod, 8080);
    let plane = listen(&lab.pod, 15006);
    for (address, source) in [
        (POD, IpAddr::from(probe::SOURCE_V4)),
        (POD_V6, IpAddr::from(probe::SOURCE_V6)),
    ] {
        let mut dialled = dial(&lab.client, address, 8080).unwrap();
        let (mut accepted, peer) = accept(&application).unwrap();
        assert_eq!(peer.ip(), source);
        exchange(&mut dialled, &mut accepted);
        dial(&lab.client, address, 9090).unwrap();
        accept(&plane).unwrap();
    }
}

#[tokio::test]
async fn the_sidecars_own_connections_are_exempt_by_its_user() {
    let lab = Lab::new().await;
    let facts = PodFacts {
        has_sidecar: true,
        ..PodFacts::default()
    };
    redirect(&lab, &facts, Plane::Sidecar).await;
    let plane = listen(&lab.pod, 15101);
    let outside = listen(&lab.client, 80);
    let dial_as = |user: u32| {
        let script = format!("exec 3<>/dev/tcp/{CLIENT}/80");
        lab.pod
            .run(|| Command::new("bash").args(["-c", &script]).uid(user).spawn())
            .unwrap()
    };
    let mut sidecar = dial_as(15008);
    assert_eq!(accept(&outside).unwrap().1.ip(), POD);
    let mut application = dial_as(1000);
    let (accepted, _) = accept(&plane).unwrap();
    assert_eq!(
        original_destination(&accepted, false),
        SocketAddr::new(CLIENT, 80)
    );
    sidecar.wait().unwrap();
    application.wait().unwrap();
}
