use std::net::{IpAddr, Ipv6Addr};

use trefoil_api::proto::istio::workload::{self as wire, load_balancing::HealthPolicy};
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::fixtures::{of_services, of_workloads, service, serving, workload};

use super::{CHANGING, Found, STABLE, find};

const CARTS: &str = "shop/carts.shop.svc.cluster.local";

/// `web` with addresses of both families, and the headless `carts` with two pods, of which one is ready.
fn known(allow_unready: bool) -> Store {
    let store = Store::new();
    let mut web = service("web", [10, 96, 0, 1], 80);
    web.addresses.push(wire::NetworkAddress {
        address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)
            .octets()
            .to_vec()
            .into(),
        ..wire::NetworkAddress::default()
    });
    let mut carts = service("carts", [0, 0, 0, 0], 80);
    carts.addresses.clear();
    if allow_unready {
        carts.load_balancing = Some(wire::LoadBalancing {
            health_policy: HealthPolicy::AllowAll.into(),
            ..wire::LoadBalancing::default()
        });
    }
    let mut empty = service("empty", [0, 0, 0, 0], 80);
    empty.addresses.clear();
    assert_eq!(store.apply(&of_services(&[web, carts, empty])), []);
    let pod = |number: u8, ready: bool| {
        let name = format!("cart-{number}");
        let mut pod = serving(workload(&name, [10, 0, 0, number]), CARTS, 80, 80);
        pod.hostname = format!("{name}.carts.shop.svc.cluster.local");
        pod.status = i32::from(!ready);
        pod
    };
    assert_eq!(store.apply(&of_workloads(&[pod(1, true), pod(2, false)])), []);
    store
}

fn addresses(store: &Store, name: &str) -> Option<(Vec<IpAddr>, u32)> {
    find(&store.snapshot(), name).map(|Found { addresses, lifetime }| (addresses, lifetime))
}

fn of(texts: &[&str], lifetime: u32) -> Option<(Vec<IpAddr>, u32)> {
    Some((texts.iter().map(|text| text.parse().unwrap()).collect(), lifetime))
}

#[test]
fn services_are_their_virtual_addresses_and_headless_ones_their_ready_pods() {
    let store = known(false);
    assert_eq!(
        addresses(&store, "web.shop.svc.cluster.local"),
        of(&["10.96.0.1", "fd00::1"], STABLE)
    );
    assert_eq!(
        addresses(&store, "carts.shop.svc.cluster.local"),
        of(&["10.0.0.1"], CHANGING)
    );
    let pod = "cart-1.carts.shop.svc.cluster.local";
    assert_eq!(addresses(&store, pod), of(&["10.0.0.1"], CHANGING));
}

#[test]
fn pods_that_are_not_ready_are_known_where_the_service_publishes_them() {
    let pod = "cart-2.carts.shop.svc.cluster.local";
    assert_eq!(addresses(&known(false), pod), None);
    let store = known(true);
    assert_eq!(addresses(&store, pod), of(&["10.0.0.2"], CHANGING));
    let both = addresses(&store, "carts.shop.svc.cluster.local");
    assert_eq!(both, of(&["10.0.0.1", "10.0.0.2"], CHANGING));
}

#[test]
fn what_may_exist_elsewhere_is_not_known() {
    let store = known(false);
    for name in [
        "",
        ".",
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local.shop.svc.cluster.local",
        "web.other.svc.cluster.local",
        "nothing.shop.svc.cluster.local",
        "empty.shop.svc.cluster.local",
        "cart-3.carts.shop.svc.cluster.local",
        "cart-1.web.shop.svc.cluster.local",
        "www.example.com",
        ".carts.shop.svc.cluster.local",
    ] {
        assert_eq!(addresses(&store, name), None, "{name}");
    }
}

#[test]
fn a_headless_service_has_the_families_that_it_says() {
    let store = Store::new();
    let mut carts = service("carts", [0, 0, 0, 0], 80);
    carts.addresses.clear();
    let mut pod = serving(workload("cart-1", [10, 0, 0, 1]), CARTS, 80, 80);
    pod.addresses.push(Ipv6Addr::LOCALHOST.octets().to_vec().into());
    assert_eq!(store.apply(&of_workloads(&[pod])), []);
    for (families, expected) in [
        (wire::IpFamilies::Ipv4Only, &["10.0.0.1"][..]),
        (wire::IpFamilies::Ipv6Only, &["::1"]),
        (wire::IpFamilies::Dual, &["10.0.0.1", "::1"]),
        (wire::IpFamilies::Automatic, &["10.0.0.1", "::1"]),
    ] {
        carts.ip_families = families.into();
        assert_eq!(store.apply(&of_services(&[carts.clone()])), []);
        assert_eq!(
            addresses(&store, "carts.shop.svc.cluster.local"),
            of(expected, CHANGING),
            "{families:?}"
        );
    }
}
