use proptest::prelude::*;
use prost::Message;
use prost_types::Any;
use trefoil_api::names::extension as extension_name;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::security::{self, Authorization};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::type_url;

use super::fixtures::{
    of_policies, of_services, of_workloads, policy, removal, response, service, serving, workload,
};
use super::*;

fn refused(workload: message::Workload) -> String {
    let refusals = Store::new().apply(&of_workloads(&[workload]));
    assert_eq!(refusals.len(), 1);
    refusals[0].problem.clone()
}

#[test]
fn workloads_are_found_by_uid_and_address_and_service() {
    let store = Store::new();
    let cart = serving(
        workload("cart", [10, 0, 0, 1]),
        "shop/cart.shop.svc.cluster.local",
        80,
        8080,
    );
    assert_eq!(store.apply(&of_workloads(&[cart])), []);
    assert_eq!(
        store.apply(&of_services(&[service("cart", [10, 96, 0, 1], 80)])),
        []
    );
    let found = store.workload_at([10, 0, 0, 1].into()).expect("by address");
    assert_eq!(Some(found.clone()), store.workload("Kubernetes//Pod/shop/cart"));
    assert_eq!(
        found.identity.to_string(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(found.tunnel, Tunnel::Hbone);
    let service = store
        .service_at([10, 96, 0, 1].into())
        .expect("by virtual address");
    assert_eq!(
        store.service_named("cart.shop.svc.cluster.local", "other"),
        Some(service.clone())
    );
    let known = store.snapshot();
    assert_eq!(known.endpoints(&service.key()).count(), 1);
    store.apply(&removal(
        type_url::ADDRESS,
        &["Kubernetes//Pod/shop/cart", "shop/cart.shop.svc.cluster.local"],
    ));
    assert_eq!(*store.snapshot(), Snapshot::default());
}

#[test]
fn what_cannot_be_understood_is_refused_whole_with_the_field() {
    type Change = fn(&mut message::Workload);
    let cases: [(&str, Change); 10] = [
        ("addresses[0]: an address has 4 or 16 bytes, not 3", |w| {
            w.addresses = vec![vec![1, 2, 3].into()]
        }),
        ("tunnel_protocol: unknown value 9", |w| w.tunnel_protocol = 9),
        ("tunnel_protocol: LEGACY", |w| w.tunnel_protocol = 2),
        ("status: unknown value 7", |w| w.status = 7),
        ("network_mode: unknown value 5", |w| w.network_mode = 5),
        ("workload_type: unknown value 8", |w| w.workload_type = 8),
        ("network: network \"far\"", |w| w.network = "far".into()),
        ("service_account: ", |w| w.service_account = "Not/A Name".into()),
        ("services[\"s\"].ports[0].target_port: 70000 is not a port", |w| {
            *w = serving(w.clone(), "s", 80, 70000);
        }),
        ("services[\"s\"].ports[0].service_port: 0 is not a port", |w| {
            *w = serving(w.clone(), "s", 0, 80)
        }),
    ];
    for (expected, change) in cases {
        let mut bad = workload("cart", [10, 0, 0, 1]);
        change(&mut bad);
        let problem = refused(bad);
        assert!(problem.starts_with(expected), "{expected}: {problem}");
    }
}

#[test]
fn placements_are_understood_or_refused() {
    let with = |plane: i32, url: &str| {
        let placement = extension::Placement {
            plane,
            isolation: 1,
            network_policy_selected: true,
            pod_uid: "u1".into(),
        };
        let mut workload = workload("cart", [10, 0, 0, 1]);
        workload.extensions = vec![message::Extension {
            name: extension_name::PLACEMENT.into(),
            config: Some(Any {
                type_url: url.into(),
                value: placement.encode_to_vec(),
            }),
        }];
        workload
    };
    let store = Store::new();
    assert_eq!(store.apply(&of_workloads(&[with(3, type_url::PLACEMENT)])), []);
    let placement = store
        .workload("Kubernetes//Pod/shop/cart")
        .expect("held")
        .placement
        .clone();
    let placement = placement.expect("placed");
    assert_eq!(placement.plane, Plane::Sidecar);
    assert!(placement.network_policy_selected);
    assert!(refused(with(12, type_url::PLACEMENT)).contains("plane: unknown value 12"));
    assert!(refused(with(1, type_url::GUARD)).contains("expected"));
}

#[test]
fn the_last_good_version_stays_in_force() {
    let store = Store::new();
    store.apply(&of_workloads(&[workload("cart", [10, 0, 0, 1])]));
    let mut bad = workload("cart", [10, 0, 0, 2]);
    bad.status = 9;
    let good = workload("web", [10, 0, 0, 3]);
    let refusals = store.apply(&of_workloads(&[bad, good]));
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].name, "Kubernetes//Pod/shop/cart");
    assert!(store.workload_at([10, 0, 0, 1].into()).is_some());
    assert!(store.workload_at([10, 0, 0, 2].into()).is_none());
    assert!(
        store.workload_at([10, 0, 0, 3].into()).is_some(),
        "the rest takes effect"
    );
}

#[test]
fn a_name_that_is_not_the_contents_is_refused() {
    let store = Store::new();
    let mut response = of_workloads(&[workload("cart", [10, 0, 0, 1])]);
    response.resources[0].name = "Kubernetes//Pod/shop/other".into();
    assert!(store.apply(&response)[0].problem.starts_with("name: "));
}

#[test]
fn a_reused_address_belongs_to_whoever_came_last_and_returns() {
    let store = Store::new();
    let name = |store: &Store| {
        store
            .workload_at([10, 0, 0, 1].into())
            .map(|found| found.name.clone())
    };
    store.apply(&of_workloads(&[workload("old", [10, 0, 0, 1])]));
    store.apply(&of_workloads(&[workload("new", [10, 0, 0, 1])]));
    assert_eq!(name(&store).as_deref(), Some("new"));
    let mut ended = workload("old", [10, 0, 0, 1]);
    ended.status = message::WorkloadStatus::Unhealthy.into();
    store.apply(&of_workloads(&[ended]));
    assert_eq!(
        name(&store).as_deref(),
        Some("new"),
        "a late word about the old one"
    );
    store.apply(&removal(type_url::ADDRESS, &["Kubernetes//Pod/shop/new"]));
    assert_eq!(name(&store).as_deref(), Some("old"));
    store.apply(&removal(type_url::ADDRESS, &["Kubernetes//Pod/shop/old"]));
    assert_eq!(name(&store), None);
}

#[test]
fn the_hosts_address_tells_no_workload() {
    let store = Store::new();
    let mut agent = workload("agent", [172, 30, 0, 11]);
    agent.network_mode = message::NetworkMode::HostNetwork.into();
    store.apply(&of_workloads(&[agent]));
    assert!(store.workload_at([172, 30, 0, 11].into()).is_none());
    assert!(store.workload("Kubernetes//Pod/shop/agent").is_some());
}

#[tokio::test]
async fn is_synced_once_both_types_were_answered_even_empty() {
    let store = Store::new();
    let mut changes = store.changes();
    store.apply(&of_policies(&[]));
    changes.changed().await.expect("a tick");
    assert!(store.policies_known() && !store.synced());
    let waiting = store.clone();
    let waiting = tokio::spawn(async move { waiting.until_synced().await });
    store.apply(&of_workloads(&[]));
    waiting.await.expect("synced");
}

#[derive(Clone, Debug)]
enum Change {
    Put { name: u8, address: u8, service: u8 },
    Remove { name: u8 },
    PutService { name: u8, address: u8 },
    RemoveService { name: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..6u8, 0..4u8, 0..3u8).prop_map(|(name, address, service)| Change::Put {
            name,
            address,
            service
        }),
        (0..6u8).prop_map(|name| Change::Remove { name }),
        (0..3u8, 0..3u8).prop_map(|(name, address)| Change::PutService { name, address }),
        (0..3u8).prop_map(|name| Change::RemoveService { name }),
    ]
}

fn service_key(name: u8) -> String {
    format!("shop/s{name}.shop.svc.cluster.local")
}

fn apply(store: &Store, change: &Change) {
    let refusals = match change {
        Change::Put {
            name,
            address,
            service,
        } => {
            let put = workload(&format!("w{name}"), [10, 0, 0, *address]);
            store.apply(&of_workloads(&[serving(put, &service_key(*service), 80, 8080)]))
        }
        Change::Remove { name } => store.apply(&removal(
            type_url::ADDRESS,
            &[&format!("Kubernetes//Pod/shop/w{name}")],
        )),
        Change::PutService { name, address } => store.apply(&of_services(&[service(
            &format!("s{name}"),
            [10, 96, 0, *address],
            80,
        )])),
        Change::RemoveService { name } => store.apply(&removal(type_url::ADDRESS, &[&service_key(*name)])),
    };
    assert_eq!(refusals, []);
}

/// The puts whose effect is still there, in their order.
fn surviving(changes: &[Change]) -> Vec<Change> {
    let key = |change: &Change| match change {
        Change::Put { name, .. } | Change::Remove { name } => (0, *name),
        Change::PutService { name, .. } | Change::RemoveService { name } => (1, *name),
    };
    let is_put = |change: &Change| matches!(change, Change::Put { .. } | Change::PutService { .. });
    let last = |index: usize| {
        changes[index + 1..]
            .iter()
            .all(|later| key(later) != key(&changes[index]))
    };
    (0..changes.len())
        .filter(|index| is_put(&changes[*index]) && last(*index))
        .map(|index| changes[index].clone())
        .collect()
}

proptest! {
    #[test]
    fn any_sequence_of_changes_gives_what_a_fresh_store_gives(changes in prop::collection::vec(change(), 0..40)) {
        let store = Store::new();
        changes.iter().for_each(|change| apply(&store, change));
        let fresh = Store::new();
        surviving(&changes).iter().for_each(|change| apply(&fresh, change));
        prop_assert_eq!(store.snapshot(), fresh.snapshot());
    }

    #[test]
    fn foreign_bytes_never_panic_and_are_refused_or_understood(bytes: Vec<u8>, policies: bool) {
        let url = if policies { type_url::AUTHORIZATION } else { type_url::ADDRESS };
        let mut response = response::<Authorization>(url, &[("shop/x", Authorization::default())], &[]);
        response.resources[0].resource = Some(Any { type_url: url.into(), value: bytes });
        let _ = Store::new().apply(&response);
    }

    #[test]
    fn addresses_are_4_or_16_bytes(bytes: Vec<u8>) {
        let understood = convert::address(&bytes, "addresses[0]").is_ok();
        prop_assert_eq!(understood, bytes.len() == 4 || bytes.len() == 16);
    }
}

/// Takes whatever it is given, but what is called `bad`.
#[derive(Debug, Default)]
struct Taken(std::sync::Mutex<Vec<String>>);

impl Consumer for Taken {
    fn apply(&self, response: &DeltaDiscoveryResponse) -> Vec<Refusal> {
        let (bad, good): (Vec<_>, Vec<_>) = response.resources.iter().partition(|one| one.name == "bad");
        let mut taken = self.0.lock().expect("not poisoned");
        taken.extend(good.into_iter().map(|one| one.name.clone()));
        let refusal = |one: &Resource| Refusal {
            name: one.name.clone(),
            problem: "bad".into(),
        };
        bad.into_iter().map(refusal).collect()
    }
}

#[test]
fn a_plane_that_reads_http_takes_its_own_types_and_is_synced_with_all_of_them() {
    let taken = std::sync::Arc::new(Taken::default());
    let store = Store::reading_http([(type_url::HTTP_ROUTE, taken.clone() as _)]);
    let types = [
        type_url::HTTP_AUTHORIZATION,
        type_url::MESH_SETTINGS,
        type_url::HTTP_ROUTE,
        type_url::ADDRESS,
    ];
    assert_eq!(store.types(), types);
    let mut policies = of_policies(&[policy("p", security::Scope::Namespace, security::Action::Deny)]);
    assert_eq!(
        store.apply(&policies).len(),
        1,
        "that of planes that read no HTTP"
    );
    policies.type_url = type_url::HTTP_AUTHORIZATION.into();
    for resource in &mut policies.resources {
        resource.resource.as_mut().expect("a policy").type_url = type_url::HTTP_AUTHORIZATION.into();
    }
    assert_eq!(store.apply(&policies), []);
    assert!(store.snapshot().policies().contains("shop/p"));
    assert_eq!(store.apply(&of_workloads(&[workload("cart", [10, 0, 0, 1])])), []);
    assert!(!store.synced(), "routes were not answered");
    let named = |name| (name, extension::HttpRoute::default());
    let routes = response(type_url::HTTP_ROUTE, &[named("good"), named("bad")], &[]);
    let refused = store.apply(&routes);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(*taken.0.lock().expect("not poisoned"), ["good"]);
    assert!(store.synced());
    assert!(!Store::new().types().contains(&type_url::HTTP_ROUTE));
}
