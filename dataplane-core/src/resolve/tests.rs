use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use trefoil_api::proto::istio::workload as message;

use trefoil_dataplane_state::state::fixtures::{
    of_services, of_workloads, removal, service, serving, waypoint, workload,
};

const CART: &str = "shop/cart.shop.svc.cluster.local";
const DOOR: &str = "shop/door.shop.svc.cluster.local";

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

/// What is of the mesh is not a stranger only because it was not understood: plaintext to it would be.
#[test]
fn what_was_refused_and_never_understood_is_not_reached() {
    let (store, url) = (store(), trefoil_api::proto::type_url::ADDRESS);
    let mut bad = workload("new", [10, 0, 0, 9]);
    bad.tunnel_protocol = 99;
    assert_eq!(store.apply(&of_workloads(&[bad.clone()])).len(), 1);
    let mut strange = service("strange", [10, 96, 0, 9], 80);
    strange.ip_families = 99;
    assert_eq!(store.apply(&of_services(&[strange.clone()])).len(), 1);
    for destination in ["10.0.0.9:80", "10.96.0.9:80"] {
        assert_eq!(from(&store, "web", destination), Target::Refused);
    }
    let names = [bad.uid.as_str(), "shop/strange.shop.svc.cluster.local"];
    assert!(store.apply(&removal(url, &names)).is_empty());
    for destination in ["10.0.0.9:80", "10.96.0.9:80"] {
        assert_eq!(
            from(&store, "web", destination),
            Target::Passthrough(at(destination))
        );
    }

    // A last good version stays in force, and one that is understood takes the place of a refusal.
    bad.uid = "Kubernetes//Pod/shop/cart".into();
    assert_eq!(store.apply(&of_workloads(&[bad])).len(), 1);
    assert!(matches!(
        from(&store, "web", "10.0.0.1:80"),
        Target::Workload { .. }
    ));
    strange.ip_families = 0;
    assert!(store.apply(&of_services(&[strange])).is_empty());
    assert!(matches!(
        from(&store, "web", "10.96.0.9:80"),
        Target::NoEndpoint { .. }
    ));
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

fn through(store: &Store, destination: &str) -> (Target, String) {
    let target = from(store, "web", destination);
    let at = match &target {
        Target::Waypoint { first, dialled, .. } => format!("{} for {}", first.address, dialled.address),
        Target::NoWaypoint { waypoint, dialled } => format!("no {waypoint} for {}", dialled.address),
        other => panic!("not through a waypoint: {other:?}"),
    };
    (target, at)
}

#[test]
fn what_a_waypoint_serves_is_reached_through_it_and_no_other_way() {
    let store = store();
    let mut cart = service("cart", [10, 96, 0, 1], 80);
    cart.waypoint = waypoint("door");
    let mut books = workload("books", [10, 0, 0, 3]);
    books.waypoint = waypoint("door");
    assert_eq!(store.apply(&of_services(&[cart.clone()])), []);
    assert_eq!(store.apply(&of_workloads(&[books])), []);
    // Nothing is known of the waypoint.
    let missing = "no shop/door.shop.svc.cluster.local for 10.96.0.1:80";
    assert_eq!(through(&store, "10.96.0.1:80").1, missing);

    // Its service is known, and has no endpoint that is healthy.
    let door = |status| {
        let mut door = workload("door", [10, 0, 0, 9]);
        door.status = status;
        serving(door, DOOR, 15008, 15008)
    };
    assert_eq!(
        store.apply(&of_services(&[service("door", [10, 96, 0, 9], 15008)])),
        []
    );
    assert_eq!(through(&store, "10.96.0.1:80").1, missing);
    assert_eq!(store.apply(&of_workloads(&[door(1)])), []);
    assert_eq!(through(&store, "10.96.0.1:80").1, missing);

    assert_eq!(store.apply(&of_workloads(&[door(0)])), []);
    let (target, seen) = through(&store, "10.96.0.1:80");
    assert_eq!(seen, "10.0.0.9:15008 for 10.96.0.1:80");
    let Target::Waypoint {
        waypoint,
        first: chosen,
        dialled,
    } = target
    else {
        panic!("a waypoint");
    };
    assert_eq!((waypoint.as_str(), chosen.workload.name.as_str()), (DOOR, "door"));
    assert_eq!(dialled.service.expect("a service").name, "cart");
    let (target, seen) = through(&store, "10.0.0.3:99");
    assert_eq!(seen, "10.0.0.9:15008 for 10.0.0.3:99");
    assert!(matches!(target, Target::Waypoint { dialled, .. } if dialled.workload.is_some()));

    // A service whose clients choose the address is served by its waypoint all the same.
    cart.load_balancing = Some(message::LoadBalancing {
        mode: message::load_balancing::Mode::Passthrough.into(),
        ..message::LoadBalancing::default()
    });
    assert_eq!(store.apply(&of_services(&[cart])), []);
    assert_eq!(
        through(&store, "10.96.0.1:80").1,
        "10.0.0.9:15008 for 10.96.0.1:80"
    );
    // An endpoint's own address is not the service's.
    assert!(matches!(
        from(&store, "web", "10.0.0.1:8080"),
        Target::Workload { .. }
    ));
    // Itself.
    let itself = from(&store, "books", "10.0.0.3:99");
    assert_eq!(itself, Target::Passthrough(at("10.0.0.3:99")));
}

#[test]
fn requests_are_read_of_what_may_be_http_and_has_no_waypoint() {
    let store = store();
    let read = |client: &str, destination: &str, routed: bool| {
        let client = store.workload(&format!("Kubernetes//Pod/shop/{client}"));
        let client = client.expect("held");
        requests_to(&store.snapshot(), &client, at(destination), |_| routed)
            .map(|(service, endpoint)| (service.is_some(), endpoint.map(|to| to.address)))
    };
    let whole = Some((true, None));
    assert_eq!(read("web", "10.96.0.1:80", false), whole);
    assert_eq!(read("web", "[::ffff:10.96.0.1]:80", false), whole);
    // Whatever has no endpoint may have a route to one that has.
    assert_eq!(read("web", "10.96.0.2:80", false), whole);
    let itself = Some((false, Some(at("10.0.0.1:8080"))));
    assert_eq!(read("web", "10.0.0.1:8080", false), itself);
    for bytes in ["10.96.0.1:81", "192.0.2.1:80", "10.0.0.2:80"] {
        assert_eq!(read("web", bytes, false), None, "{bytes}");
    }

    // A waypoint reads them, but for the client's own routes.
    let mut cart = service("cart", [10, 96, 0, 1], 80);
    cart.waypoint = waypoint("door");
    assert_eq!(store.apply(&of_services(&[cart])), []);
    assert_eq!(read("web", "10.96.0.1:80", false), None);
    assert_eq!(read("web", "10.96.0.1:80", true), whole);
    let mut books = workload("books", [10, 0, 0, 3]);
    books.waypoint = waypoint("door");
    assert_eq!(store.apply(&of_workloads(&[books])), []);
    assert_eq!(read("web", "10.0.0.3:80", true), None);

    // What is declared to be bytes is bytes.
    let mut redis = service("redis", [10, 96, 0, 3], 6379);
    redis.ports[0].app_protocol = message::AppProtocol::Tcp.into();
    assert_eq!(store.apply(&of_services(&[redis])), []);
    assert_eq!(read("web", "10.96.0.3:6379", false), None);
}
