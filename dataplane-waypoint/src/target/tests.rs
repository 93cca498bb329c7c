use std::collections::BTreeMap;

use prost::Message;
use trefoil_api::names::{extension, workload_uid};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1 as trefoil;
use trefoil_api::proto::type_url;
use trefoil_dataplane_state::Store;

use super::*;

fn hostname(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

fn waypoint(name: &str) -> Option<message::GatewayAddress> {
    let hostname = message::NamespacedHostname {
        namespace: "shop".into(),
        hostname: hostname(name),
    };
    Some(message::GatewayAddress {
        destination: Some(message::gateway_address::Destination::Hostname(hostname)),
        hbone_mtls_port: 15008,
    })
}

fn workload(name: &str, last: u8) -> message::Workload {
    message::Workload {
        uid: workload_uid("shop", name),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![vec![10, 0, 0, last].into()],
        service_account: name.into(),
        ..message::Workload::default()
    }
}

fn guarded(mut workload: message::Workload, guard: &trefoil::Guard) -> message::Workload {
    workload.extensions.push(message::Extension {
        name: extension::GUARD.into(),
        config: Some(prost_types::Any {
            type_url: type_url::GUARD.into(),
            value: guard.encode_to_vec(),
        }),
    });
    workload
}

fn by(account: &str, name: &str) -> trefoil::Guard {
    trefoil::Guard {
        identity: format!("spiffe://cluster.local/ns/shop/sa/{account}"),
        service: format!("shop/{}", hostname(name)),
        closed: String::new(),
    }
}

fn service(name: &str, last: u8, waypoint: Option<message::GatewayAddress>) -> message::Service {
    message::Service {
        name: name.into(),
        namespace: "shop".into(),
        hostname: hostname(name),
        addresses: vec![message::NetworkAddress {
            address: vec![10, 96, 0, last].into(),
            ..message::NetworkAddress::default()
        }],
        waypoint,
        ..message::Service::default()
    }
}

fn known() -> Store {
    let mut door = workload("door", 9);
    door.services = BTreeMap::from([(format!("shop/{}", hostname("door")), message::PortList::default())])
        .into_iter()
        .collect();
    let mut through = workload("through", 3);
    through.waypoint = waypoint("door");
    let mut elsewhere = workload("elsewhere", 4);
    elsewhere.waypoint = waypoint("gate");
    let closed = trefoil::Guard {
        closed: "two".into(),
        ..trefoil::Guard::default()
    };
    let workloads = [
        door,
        workload("open", 1),
        guarded(workload("guarded", 2), &by("door", "door")),
        through,
        elsewhere,
        guarded(workload("gated", 5), &by("gate", "gate")),
        guarded(workload("renamed", 6), &by("gate", "door")),
        guarded(workload("closed", 7), &closed),
    ];
    let mut headless = service("headless", 0, waypoint("door"));
    headless.addresses.clear();
    let services = [
        service("cart", 1, waypoint("door")),
        service("books", 2, waypoint("gate")),
        service("open", 3, None),
        headless,
    ];
    let workloads = workloads.map(|one| (one.uid.clone(), message::address::Type::Workload(one)));
    let services = services.map(|one| {
        let key = format!("shop/{}", one.hostname);
        (key, message::address::Type::Service(one))
    });
    let resource = |(name, r#type)| Resource {
        name,
        resource: Some(prost_types::Any {
            type_url: type_url::ADDRESS.into(),
            value: message::Address { r#type: Some(r#type) }.encode_to_vec(),
        }),
        ..Resource::default()
    };
    let store = Store::new();
    let refused = store.apply(&DeltaDiscoveryResponse {
        type_url: type_url::ADDRESS.into(),
        resources: workloads.into_iter().chain(services).map(resource).collect(),
        ..DeltaDiscoveryResponse::default()
    });
    assert_eq!(refused, []);
    store
}

#[test]
fn a_waypoint_serves_what_names_it_and_nothing_else() {
    let store = known();
    let own = store.workload(&workload_uid("shop", "door")).expect("held");
    let address = |text: &str| Destination::Address(text.parse().expect("an address"));
    let named = |name: &str| Destination::Service(hostname(name), 80);
    let cases = [
        (address("10.96.0.1:80"), Some("service cart at 10.96.0.1:80")),
        (address("10.96.0.2:80"), None),
        (address("10.96.0.3:80"), None),
        (address("10.0.0.1:8080"), None),
        (
            address("10.0.0.2:8080"),
            Some("workload guarded at 10.0.0.2:8080"),
        ),
        (
            address("10.0.0.3:8080"),
            Some("workload through at 10.0.0.3:8080"),
        ),
        (address("10.0.0.4:8080"), None),
        (address("10.0.0.5:8080"), None),
        (address("10.0.0.6:8080"), None),
        (address("10.0.0.7:8080"), None),
        (address("10.0.0.9:15008"), None),
        (address("192.0.2.1:80"), None),
        (named("cart"), Some("service cart at 10.96.0.1:80")),
        (named("headless"), Some("service headless at 10.0.0.9:80")),
        (named("books"), None),
        (named("nothing"), None),
    ];
    for (asked, expected) in cases {
        let found = match target(&store.snapshot(), &own, &asked) {
            Ok(Target::Service { service, address }) => {
                Some(format!("service {} at {address}", service.name))
            }
            Ok(Target::Workload(Endpoint { workload, address })) => {
                Some(format!("workload {} at {address}", workload.name))
            }
            Err(Failure::NotServed(_)) => None,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found.as_deref(), expected, "{asked:?}");
    }
}
