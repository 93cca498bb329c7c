use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::state::tests::{of_services, of_workloads, service, serving, workload};

const CART: &str = "shop/cart.shop.svc.cluster.local";

fn store() -> Store {
    let store = Store::new();
    let cart = serving(workload("cart", [10, 0, 0, 1]), CART, 80, 8080);
    let web = workload("web", [10, 0, 0, 2]);
    assert_eq!(store.apply(&of_workloads(&[cart, web])), []);
    let empty = service("empty", [10, 96, 0, 2], 80);
    assert_eq!(
        store.apply(&of_services(&[service("cart", [10, 96, 0, 1], 80), empty])),
        []
    );
    store
}

fn from(store: &Store, client: &str, destination: &str) -> Target {
    let client = store
        .workload(&format!("Kubernetes//Pod/shop/{client}"))
        .expect("held");
    let destination = destination.parse().expect("an address");
    resolve(store, &client, destination, &mut SmallRng::seed_from_u64(7))
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn a_virtual_address_leads_to_an_endpoint_and_its_port() {
    let Target::Workload {
        workload,
        address,
        service,
    } = from(&store(), "web", "10.96.0.1:80")
    else {
        panic!("an endpoint");
    };
    assert_eq!(workload.name, "cart");
    assert_eq!(address, at("10.0.0.1:8080"));
    assert_eq!(service.expect("dialled").name, "cart");
}

#[test]
fn a_mapped_address_is_the_address_it_maps() {
    assert!(matches!(
        from(&store(), "web", "[::ffff:10.96.0.1]:80"),
        Target::Workload { .. }
    ));
}

#[test]
fn a_workloads_address_leads_to_it_as_dialled() {
    let Target::Workload {
        workload,
        address,
        service,
    } = from(&store(), "web", "10.0.0.1:9999")
    else {
        panic!("a workload");
    };
    assert_eq!(
        (workload.name.as_str(), address, service),
        ("cart", at("10.0.0.1:9999"), None)
    );
}

#[test]
fn ones_own_address_is_never_tunnelled() {
    assert_eq!(
        from(&store(), "cart", "10.0.0.1:8080"),
        Target::Passthrough(at("10.0.0.1:8080"))
    );
    let through_the_service = from(&store(), "cart", "10.96.0.1:80");
    assert_eq!(through_the_service, Target::Passthrough(at("10.0.0.1:8080")));
}

#[test]
fn no_endpoint_is_said_and_so_is_an_unknown_port() {
    assert!(matches!(
        from(&store(), "web", "10.96.0.2:80"),
        Target::NoEndpoint { .. }
    ));
    assert!(matches!(
        from(&store(), "web", "10.96.0.1:81"),
        Target::NoEndpoint { .. }
    ));
}

#[test]
fn what_is_not_known_passes_unless_only_what_is_known_may_be_reached() {
    let store = store();
    assert_eq!(
        from(&store, "web", "192.0.2.1:443"),
        Target::Passthrough(at("192.0.2.1:443"))
    );
    store.set_registry_only(true);
    assert_eq!(from(&store, "web", "192.0.2.1:443"), Target::Refused);
}
