use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::istio::workload::load_balancing as balancing;

use super::*;
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::fixtures::{of_services, of_workloads, service, serving, workload};

const CART: &str = "shop/cart.shop.svc.cluster.local";

/// Where an endpoint is, and whether it may be chosen.
#[derive(Clone, Debug)]
struct Place {
    region: u8,
    zone: u8,
    node: u8,
    healthy: bool,
}

fn placed(name: &str, index: u8, place: &Place) -> message::Workload {
    let mut workload = serving(workload(name, [10, 0, 0, index]), CART, 80, 8080);
    workload.locality = Some(message::Locality {
        region: format!("r{}", place.region),
        zone: format!("r{}z{}", place.region, place.zone),
        subzone: String::new(),
    });
    workload.node = format!("r{}z{}n{}", place.region, place.zone, place.node);
    workload.status = i32::from(!place.healthy);
    workload
}

fn place() -> impl Strategy<Value = Place> {
    (0..2u8, 0..2u8, 0..2u8, prop::bool::weighted(0.8)).prop_map(|(region, zone, node, healthy)| Place {
        region,
        zone,
        node,
        healthy,
    })
}

fn known(places: &[Place], balancing: Option<message::LoadBalancing>) -> Store {
    let store = Store::new();
    let workloads: Vec<_> = places
        .iter()
        .zip(1..)
        .map(|(place, index)| placed(&format!("w{index}"), index, place))
        .collect();
    let client = Place {
        region: 0,
        zone: 0,
        node: 0,
        healthy: true,
    };
    let mut client = placed("client", 200, &client);
    client.services.clear();
    assert_eq!(store.apply(&of_workloads(&workloads)), []);
    assert_eq!(store.apply(&of_workloads(&[client])), []);
    let mut service = service("cart", [10, 96, 0, 1], 80);
    service.load_balancing = balancing;
    assert_eq!(store.apply(&of_services(&[service])), []);
    store
}

fn pick(store: &Store, seed: u64) -> Option<Endpoint> {
    let known = store.snapshot();
    let service = known.service(CART).expect("held");
    let client = known.workload("Kubernetes//Pod/shop/client").expect("held");
    let dialled = "10.96.0.1:80".parse().expect("an address");
    choose(
        &known,
        &service,
        &[client.as_ref().into()],
        dialled,
        &mut SmallRng::seed_from_u64(seed),
    )
}

/// How near, told slowly: 3 same node, 2 same zone, 1 same region, 0 elsewhere.
fn nearness(place: &Place) -> u8 {
    match (place.region, place.zone, place.node) {
        (0, 0, 0) => 3,
        (0, 0, _) => 2,
        (0, _, _) => 1,
        _ => 0,
    }
}

fn with(
    mode: balancing::Mode,
    preference: &[balancing::Scope],
    health: balancing::HealthPolicy,
) -> message::LoadBalancing {
    message::LoadBalancing {
        routing_preference: preference.iter().map(|scope| *scope as i32).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    }
}

proptest! {
    #[test]
    fn the_chosen_one_is_healthy_and_none_is_nearer(places in prop::collection::vec(place(), 0..12), seed: u64) {
        let store = known(&places, None);
        let best = places.iter().filter(|place| place.healthy).map(nearness).max();
        let chosen = pick(&store, seed).map(|chosen| {
            let index: usize = chosen.workload.name[1..].parse().expect("a number");
            places[index - 1].clone()
        });
        prop_assert_eq!(chosen.as_ref().map(nearness), best);
        prop_assert!(chosen.is_none_or(|place| place.healthy));
    }

    #[test]
    fn strict_never_leaves_what_was_asked_for(places in prop::collection::vec(place(), 0..12), seed: u64) {
        let strict = with(balancing::Mode::Strict, &[balancing::Scope::Node], balancing::HealthPolicy::OnlyHealthy);
        let store = known(&places, Some(strict));
        let local = places.iter().any(|place| place.healthy && nearness(place) == 3);
        let chosen = pick(&store, seed);
        prop_assert_eq!(chosen.is_some(), local);
        prop_assert!(chosen.is_none_or(|chosen| chosen.workload.node == "r0z0n0"));
    }

    #[test]
    fn the_unhealthy_are_chosen_only_on_request(places in prop::collection::vec(place(), 1..12), seed: u64) {
        let all = with(balancing::Mode::UnspecifiedMode, &[], balancing::HealthPolicy::AllowAll);
        prop_assert!(pick(&known(&places, Some(all)), seed).is_some());
    }
}

#[test]
fn equals_share_evenly_and_capacity_counts() {
    let near = Place {
        region: 0,
        zone: 0,
        node: 0,
        healthy: true,
    };
    let store = known(&vec![near.clone(); 4], None);
    let mut counts = BTreeMap::<String, u32>::new();
    for seed in 0..4000 {
        let chosen = pick(&store, seed).expect("an endpoint");
        *counts.entry(chosen.workload.name.clone()).or_default() += 1;
    }
    assert!(
        counts.values().all(|count| (850..1150).contains(count)),
        "{counts:?}"
    );
    let mut idle = placed("w1", 1, &near);
    idle.capacity = Some(0);
    let mut big = placed("w2", 2, &near);
    big.capacity = Some(10);
    store.apply(&of_workloads(&[idle, big]));
    let mut counts = BTreeMap::<String, u32>::new();
    for seed in 0..4000 {
        let chosen = pick(&store, seed).expect("an endpoint");
        *counts.entry(chosen.workload.name.clone()).or_default() += 1;
    }
    assert!(!counts.contains_key("w1") && counts["w2"] > 3000, "{counts:?}");
}

#[test]
fn an_address_of_the_dialled_family_is_taken_where_there_is_one() {
    let v6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut both = serving(workload("w1", [10, 0, 0, 1]), CART, 80, 8080);
    both.addresses.push(v6.to_vec().into());
    let mut only_v6 = serving(workload("w2", [10, 0, 0, 2]), CART, 80, 8080);
    only_v6.addresses = vec![v6.to_vec().into()];
    let store = known(&[], None);
    store.apply(&of_workloads(&[both, only_v6]));
    let addresses: BTreeSet<_> = (0..64)
        .filter_map(|seed| pick(&store, seed))
        .map(|one| one.address)
        .collect();
    let expected = ["10.0.0.1:8080", "[fd00::1]:8080"].map(|text| text.parse().expect("an address"));
    assert_eq!(addresses, BTreeSet::from(expected));
}

/// A waypoint's choice: near to the client, among equals to itself; a client that says nothing is where it is.
#[test]
fn near_to_the_client_comes_before_near_to_the_waypoint() {
    let at = |region, zone, node| Place {
        region,
        zone,
        node,
        healthy: true,
    };
    let store = known(&[at(1, 0, 0), at(0, 1, 0), at(1, 1, 0), at(1, 1, 1)], None);
    let own = placed("own", 99, &at(1, 1, 1));
    let own = trefoil_dataplane_state::state::fixtures::known_workload(&own);
    let (known, dialled) = (store.snapshot(), "10.96.0.1:80".parse().expect("an address"));
    let service = known.service(CART).expect("held");
    let said = |region: &str, zone: &str| Locality {
        region: region.into(),
        zone: zone.into(),
        subzone: String::new(),
    };
    let client = known.workload("Kubernetes//Pod/shop/client").expect("held");
    let cases = [
        // Its workload, in region 0, whatever is said.
        (Some(&*client), said("r1", "r1z0"), "w2"),
        (None, said("r1", "r1z0"), "w1"),
        (None, said("r0", "r0z1"), "w2"),
        // Two are in the zone: the one that is on the waypoint's node.
        (None, said("r1", "r1z1"), "w4"),
        (None, Locality::default(), "w4"),
    ];
    for (client, said, expected) in cases {
        for seed in 0..20 {
            let from = vantages(client, &said, &own);
            let random = &mut SmallRng::seed_from_u64(seed);
            let chosen = choose(&known, &service, &from, dialled, random).expect("one");
            assert_eq!(chosen.workload.name, expected, "{said:?}");
        }
    }
}
