//! Any sequence of changes gives what a fresh index over the end state gives, and what it calls changed is
//! exactly what differs.

mod model;
mod network;
mod routes;
mod waypoints;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use proptest::prelude::*;
use serde_json::json;
use trefoil_api::proto::istio::security::Authorization;
use trefoil_api::proto::istio::workload::load_balancing::{Mode, Scope};
use trefoil_api::proto::istio::workload::{
    Address, IpFamilies, Service as ServiceMessage, TunnelProtocol, Workload, address,
};
use trefoil_api::proto::trefoil::v1::{Placement, Plane, PodPlacement};

use super::facts::{Endpoint, Pod, PolicyObject, Service, ServicePort, Slice};
use super::snapshot::{self, ResourceKind};
use super::{Change, Deployable, Index, NodePlacements, ObjectKey, ObjectStatus, PolicyReport};
use model::EndState;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn pod(address: &str) -> Pod {
    Pod {
        uid: format!("uid-{address}"),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        addresses: vec![address.parse().expect("address")],
        node: "n1".into(),
        service_account: "web".into(),
        ready: true,
        ..Pod::default()
    }
}

fn policy(spec: serde_json::Value) -> PolicyObject {
    PolicyObject {
        object: json!({"spec": spec}),
        generation: 1,
        ..PolicyObject::default()
    }
}

fn index(changes: Vec<Change>) -> Index {
    let mut index = Index::new("cluster.local");
    changes.into_iter().for_each(|change| index.apply(change));
    index.flush();
    index
}

fn workload(index: &Index, name: &str) -> Workload {
    let snapshot = index.snapshot();
    let encoded = snapshot.of(ResourceKind::Address).get(name).expect("served");
    match encoded.decode::<Address>().expect("decodes").r#type {
        Some(address::Type::Workload(workload)) => workload,
        other => panic!("{other:?}"),
    }
}

fn authorization(index: &Index, name: &str) -> Option<Authorization> {
    let snapshot = index.snapshot();
    let encoded = snapshot.of(ResourceKind::Authorization).get(name)?;
    Some(encoded.decode().expect("decodes"))
}

const WEB: &str = "Kubernetes//Pod/shop/web";

fn placed(plane: Plane, withdrawing: bool) -> Change {
    Change::Placements(NodePlacements {
        node: "n1".into(),
        snapshot: true,
        pods: vec![PodPlacement {
            uid: "uid-10.0.0.1".into(),
            namespace: "shop".into(),
            name: "web".into(),
            plane: plane.into(),
            withdrawing,
        }],
        removed: Vec::new(),
    })
}

/// What planes are told of a service that the cluster describes so.
fn told_of(spec: core::ServiceSpec) -> ServiceMessage {
    let object = core::Service {
        spec: Some(spec),
        ..core::Service::default()
    };
    let index = index(vec![Change::Service(key("web"), Some((&object).into()))]);
    let snapshot = index.snapshot();
    let resource = snapshot
        .of(ResourceKind::Address)
        .get("shop/web.shop.svc.cluster.local");
    let address: Address = resource.expect("served").decode().expect("an address");
    match address.r#type {
        Some(address::Type::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_headless_service_says_its_families() {
    let families = |said: &[&str]| {
        told_of(core::ServiceSpec {
            cluster_ip: Some("None".into()),
            ip_families: Some(said.iter().map(ToString::to_string).collect()),
            ..core::ServiceSpec::default()
        })
        .ip_families()
    };
    assert_eq!(families(&["IPv4"]), IpFamilies::Ipv4Only);
    assert_eq!(families(&["IPv6", "IPv4"]), IpFamilies::Dual);
    assert_eq!(families(&[]), IpFamilies::Automatic);
}

#[test]
fn where_a_service_wants_its_traffic_is_what_planes_prefer() {
    let preferred = |distribution: Option<&str>, local: bool| {
        let service = told_of(core::ServiceSpec {
            traffic_distribution: distribution.map(str::to_owned),
            internal_traffic_policy: local.then(|| "Local".into()),
            ..core::ServiceSpec::default()
        });
        let balancing = service.load_balancing.unwrap_or_default();
        (
            balancing.mode(),
            balancing.routing_preference().collect::<Vec<_>>(),
        )
    };
    let zone = (Mode::Failover, vec![Scope::Region, Scope::Zone]);
    assert_eq!(preferred(Some("PreferClose"), false), zone);
    assert_eq!(preferred(Some("PreferSameZone"), false), zone);
    // Nearest first is the mesh's own way.
    let own = (Mode::UnspecifiedMode, vec![]);
    assert_eq!(preferred(Some("PreferSameNode"), false), own);
    assert_eq!(preferred(None, false), own);
    let local = (Mode::Strict, vec![Scope::Node]);
    assert_eq!(preferred(Some("PreferClose"), true), local);
}

#[test]
fn tunnels_follow_what_the_agent_of_the_pods_own_node_reports() {
    let mut index = index(vec![Change::Pod(key("web"), Some(pod("10.0.0.1")))]);
    let tunnel = |index: &Index| workload(index, WEB).tunnel_protocol();
    assert_eq!(tunnel(&index), TunnelProtocol::None);
    for (plane, withdrawing, expected) in [
        (Plane::Node, false, TunnelProtocol::Hbone),
        (Plane::Sidecar, false, TunnelProtocol::Hbone),
        (Plane::Sidecar, true, TunnelProtocol::None),
        (Plane::None, false, TunnelProtocol::None),
    ] {
        index.apply(placed(plane, withdrawing));
        assert!(index.flush().of(ResourceKind::Address).contains(WEB) || withdrawing || plane != Plane::Node);
        assert_eq!(tunnel(&index), expected, "{plane:?} {withdrawing}");
    }
    // Another node's agent has no say.
    let mut elsewhere = pod("10.0.0.1");
    elsewhere.node = "n2".into();
    index.apply(placed(Plane::Node, false));
    index.apply(Change::Pod(key("web"), Some(elsewhere)));
    index.flush();
    assert_eq!(tunnel(&index), TunnelProtocol::None);
}

#[test]
fn until_an_agent_has_spoken_its_annotation_holds() {
    let mut annotated = pod("10.0.0.1");
    annotated.redirection = Some(Plane::Node);
    let mut index = index(vec![Change::Pod(key("web"), Some(annotated))]);
    assert_eq!(workload(&index, WEB).tunnel_protocol(), TunnelProtocol::Hbone);
    index.apply(placed(Plane::None, false));
    index.flush();
    assert_eq!(workload(&index, WEB).tunnel_protocol(), TunnelProtocol::None);
    index.apply(Change::PlacementsForgotten("n1".into()));
    index.flush();
    assert_eq!(workload(&index, WEB).tunnel_protocol(), TunnelProtocol::Hbone);
}

#[test]
fn a_pod_has_the_name_that_cluster_dns_gives_it_in_its_headless_service() {
    let named = |hostname: Option<&str>, subdomain: Option<&str>| {
        let object: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": {"uid": "u", "labels": {}},
            "spec": {"nodeName": "n1", "hostname": hostname, "subdomain": subdomain, "containers": []},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        }))
        .expect("a pod");
        let index = index(vec![Change::Pod(key("web"), Some(Pod::from(&object)))]);
        workload(&index, WEB).hostname
    };
    assert_eq!(
        named(Some("web-0"), Some("web")),
        "web-0.web.shop.svc.cluster.local"
    );
    assert_eq!(named(Some("web-0"), None), "");
    assert_eq!(named(None, Some("web")), "");
}

#[test]
fn a_pod_serves_the_services_whose_endpoint_it_is() {
    let service = Service {
        addresses: vec!["10.96.0.1".parse().expect("address")],
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            ..ServicePort::default()
        }],
        ..Service::default()
    };
    let endpoint = |address: &str, ready| Endpoint {
        addresses: vec![address.parse().expect("address")],
        ready,
        ..Endpoint::default()
    };
    let slice = Slice {
        service: "web".into(),
        ports: vec![("http".into(), 8080)],
        endpoints: vec![endpoint("10.0.0.1", false), endpoint("192.0.2.1", true)],
    };
    let index = index(vec![
        Change::Slice(key("web-1"), Some(slice)),
        Change::Pod(key("web"), Some(pod("10.0.0.1"))),
        Change::Service(key("web"), Some(service)),
    ]);
    let web = workload(&index, WEB);
    let ports = &web.services["shop/web.shop.svc.cluster.local"].ports;
    assert_eq!((ports[0].service_port, ports[0].target_port), (80, 8080));
    assert_eq!(web.status, 1, "not ready is not healthy");
    // An endpoint that is no pod is a workload too: the API server is reached by it.
    let stranger = workload(
        &index,
        "Kubernetes/discovery.k8s.io/EndpointSlice/shop/web-1/192.0.2.1",
    );
    assert_eq!(stranger.services.len(), 1);
    let snapshot = index.snapshot();
    let members = snapshot
        .of(ResourceKind::Address)
        .members("shop/web.shop.svc.cluster.local");
    assert_eq!(members.count(), 2);
}

#[test]
fn a_malformed_policy_leaves_the_last_good_one_in_force_or_closes() {
    let selector = json!({"matchLabels": {"app": "web"}});
    let good = policy(json!({"selector": selector, "rules": [{}]}));
    let bad = policy(json!({"selector": selector, "rules": [{"to": [{"ports": [0]}]}]}));
    let mut index = index(vec![
        Change::Pod(key("web"), Some(pod("10.0.0.1"))),
        Change::Authorization(key("p"), Some(good)),
        Change::Authorization(key("q"), Some(policy(json!({"rules": [{}]})))),
    ]);
    let before = authorization(&index, "shop/p").expect("served");
    index.apply(Change::Authorization(key("p"), Some(bad.clone())));
    index.flush();
    assert_eq!(authorization(&index, "shop/p"), Some(before));
    let report = |index: &Index| {
        index
            .reports()
            .find(|one| one.key == key("p"))
            .cloned()
            .expect("reported")
    };
    assert!(!report(&index).statements[0].holds);
    assert!(
        report(&index).statements[0]
            .message
            .contains("spec.rules[0].to[0].ports[0]")
    );
    // With no good version, its workloads are closed.
    index.apply(Change::Authorization(key("p"), None));
    index.apply(Change::Authorization(key("p"), Some(bad)));
    index.flush();
    let closed = authorization(&index, "shop/p").expect("served");
    assert_eq!(closed, crate::translate::closed("shop", "p", closed.scope()));
    assert_eq!(workload(&index, WEB).authorization_policies, vec!["shop/p"]);
}

#[test]
fn strictness_is_named_by_its_workloads_and_gone_with_the_last() {
    let mut index = index(vec![
        Change::Pod(key("web"), Some(pod("10.0.0.1"))),
        Change::PeerAuthentication(key("default"), Some(policy(json!({"mtls": "Strict"})))),
    ]);
    assert_eq!(
        workload(&index, WEB).authorization_policies,
        vec!["shop/peer_authentication_default"]
    );
    assert!(authorization(&index, "shop/peer_authentication_default").is_some());
    index.apply(Change::Pod(key("web"), None));
    let changes = index.flush();
    assert!(authorization(&index, "shop/peer_authentication_default").is_none());
    assert!(
        changes
            .of(ResourceKind::Authorization)
            .contains("shop/peer_authentication_default")
    );
}

/// The mesh's part differs between workloads that the same policy of their namespace is about.
#[test]
fn policies_against_plaintext_with_different_contents_have_different_names() {
    let of_mesh = |name: &str| ObjectKey::new("trefoil-system", name);
    let plain = Pod {
        labels: [("app".to_owned(), "plain".to_owned())].into(),
        ..pod("10.0.0.2")
    };
    let some = json!({"selector": {"matchLabels": {"app": "web"}}, "mtls": "Strict"});
    let index = index(vec![
        Change::Pod(key("web"), Some(pod("10.0.0.1"))),
        Change::Pod(key("plain"), Some(plain)),
        Change::PeerAuthentication(key("ports"), Some(policy(json!({"ports": {"80": "Strict"}})))),
        Change::PeerAuthentication(of_mesh("some"), Some(policy(some))),
    ]);
    let served = |name: &str| {
        let policies = workload(&index, name).authorization_policies;
        assert_eq!(policies.len(), 1, "{policies:?}");
        (
            policies[0].clone(),
            authorization(&index, &policies[0]).expect("served").rules,
        )
    };
    let (web, plain) = (served(WEB), served("Kubernetes//Pod/shop/plain"));
    assert_eq!(web.0, "shop/peer_authentication_mesh_some+ports");
    assert_eq!(plain.0, "shop/peer_authentication_ports");
    assert_ne!(web.1, plain.1, "one is about all ports, the other about one");
}

/// What a namespace's policy leaves open is the mesh's to say, which has two policies to say it with.
#[test]
fn the_less_specific_policies_are_part_of_the_name() {
    let of_mesh = |name: &str| ObjectKey::new("trefoil-system", name);
    let own = |app: &str| json!({"selector": {"matchLabels": {"app": app}}, "ports": {"80": "Strict"}});
    let both = Pod {
        labels: [
            ("app".to_owned(), "web".to_owned()),
            ("tier".to_owned(), "front".to_owned()),
        ]
        .into(),
        ..pod("10.0.0.2")
    };
    let front = json!({"selector": {"matchLabels": {"tier": "front"}}, "mtls": "Strict"});
    let index = index(vec![
        Change::Pod(key("web"), Some(pod("10.0.0.1"))),
        Change::Pod(key("both"), Some(both)),
        Change::PeerAuthentication(key("own"), Some(policy(own("web")))),
        Change::PeerAuthentication(of_mesh("front"), Some(policy(front))),
    ]);
    for (name, resource, clauses) in [
        (WEB, "shop/peer_authentication_own", 2),
        (
            "Kubernetes//Pod/shop/both",
            "shop/peer_authentication_own+mesh_front",
            1,
        ),
    ] {
        assert_eq!(workload(&index, name).authorization_policies, vec![resource]);
        let served = authorization(&index, resource).expect("served");
        assert_eq!(served.rules[0].clauses.len(), clauses, "{name}");
    }
}

#[test]
fn placement_travels_with_the_workload() {
    let index = index(vec![
        Change::Namespace(
            "shop".into(),
            Some(super::facts::Namespace {
                labels: [("trefoil.dev/isolation".to_owned(), "namespace".to_owned())].into(),
            }),
        ),
        Change::NetworkPolicy(key("any"), Some(super::facts::NetworkPolicy::default())),
        Change::Pod(key("web"), Some(pod("10.0.0.1"))),
        placed(Plane::Node, false),
    ]);
    let web = workload(&index, WEB);
    let config = web.extensions[0].config.as_ref().expect("config");
    let placement: Placement = prost::Message::decode(config.value.as_slice()).expect("decodes");
    assert_eq!(placement.plane(), Plane::Node);
    assert!(placement.network_policy_selected);
    assert_eq!(placement.pod_uid, "uid-10.0.0.1");
    assert_eq!(placement.isolation, 2);
}

type Versions = BTreeMap<(ResourceKind, Arc<str>), snapshot::Version>;

fn versions(index: &Index) -> Versions {
    let snapshot = index.snapshot();
    let of = |kind: ResourceKind| {
        let all: Vec<_> = snapshot.of(kind).iter().cloned().collect();
        all.into_iter()
            .map(move |one| ((kind, one.name.clone()), one.version))
    };
    ResourceKind::ALL.into_iter().flat_map(of).collect()
}

/// What is seen of an index beside resources.
type Seen = (
    Vec<String>,
    Vec<PolicyReport>,
    Vec<ObjectStatus>,
    Vec<Deployable>,
    Vec<String>,
);

fn seen(index: &Index) -> Seen {
    (
        index
            .namespaces()
            .map(str::to_owned)
            .chain(index.findings())
            .collect(),
        index.reports().cloned().collect(),
        index.statuses().cloned().collect(),
        index.deployables().collect(),
        vec![format!("{:?} {:?}", index.config(), index.config_errors())],
    )
}

/// Somebody who looks when there is news, and misses nothing.
fn look(told: &mut Option<Seen>, index: &mut Index) {
    if index.take_news() {
        *told = Some(seen(index));
    }
    assert_eq!(
        told.as_ref(),
        Some(&seen(index)),
        "what changed without being news"
    );
}

/// What a client that follows the changes holds.
fn follow(held: &mut Versions, index: &mut Index) {
    let changes = index.flush();
    let snapshot = index.snapshot();
    for kind in ResourceKind::ALL {
        let all = snapshot.of(kind);
        let listed: snapshot::Versions = all
            .iter()
            .map(|one| (one.name.clone(), Some(one.version)))
            .collect();
        assert!(
            *all.versions() == listed,
            "{kind:?}: versions are others than those of what there is"
        );
        assert_eq!(all.bytes(), all.iter().map(|one| one.wire.len()).sum::<usize>());
    }
    for kind in ResourceKind::ALL {
        for name in changes.of(kind) {
            match snapshot.of(kind).get(name) {
                Some(resource) => {
                    let old = held.insert((kind, name.clone()), resource.version);
                    assert_ne!(
                        old.as_ref(),
                        Some(&resource.version),
                        "{name} is called changed and is not"
                    );
                }
                None => {
                    held.remove(&(kind, name.clone()));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_sequence_gives_what_a_fresh_index_gives(
        waypoint in any::<bool>(),
        steps in prop::collection::vec((model::change(), prop::bool::weighted(0.3)), 0..60),
    ) {
        let first = if waypoint { routes::with_a_waypoint() } else { Vec::new() };
        let steps = first.into_iter().map(|change| (change, false)).chain(steps);
        let mut index = Index::new("cluster.local");
        let mut end = EndState::default();
        let mut held = Versions::new();
        let mut told = None;
        for (change, flush) in steps {
            end.note(&change);
            index.apply(change);
            if flush {
                follow(&mut held, &mut index);
                look(&mut told, &mut index);
            }
        }
        follow(&mut held, &mut index);
        look(&mut told, &mut index);
        let mut fresh = Index::new("cluster.local");
        end.changes().into_iter().for_each(|change| fresh.apply(change));
        fresh.flush();
        prop_assert_eq!(&held, &versions(&index), "a client that follows holds something else");
        prop_assert_eq!(versions(&index), versions(&fresh));
        let reports = |index: &Index| index.reports().cloned().collect::<Vec<_>>();
        prop_assert_eq!(reports(&index), reports(&fresh));
        let statuses = |index: &Index| index.statuses().cloned().collect::<Vec<_>>();
        prop_assert_eq!(statuses(&index), statuses(&fresh));
        let findings = |index: &Index| index.findings().collect::<Vec<_>>();
        prop_assert_eq!(findings(&index), findings(&fresh));
        for (namespace, account) in model::WAYPOINTS {
            let reserved = |index: &Index| index.snapshot().is_reserved(namespace, account);
            prop_assert_eq!(reserved(&index), reserved(&fresh));
        }
        for (node, namespace) in [("n1", "shop"), ("n2", "shop"), ("n1", "trefoil-system"), ("n1", "other")] {
            prop_assert_eq!(index.snapshot().runs(node, namespace, "web"), fresh.snapshot().runs(node, namespace, "web"));
        }
        for address in ["/10.0.0.1", "/10.0.0.2", "/10.96.0.1"] {
            let named = |index: &Index| index.snapshot().of(ResourceKind::Address).named(address).collect::<Vec<_>>();
            prop_assert_eq!(named(&index), named(&fresh));
        }
        for service in ["shop/web.shop.svc.cluster.local", "shop/api.shop.svc.cluster.local"] {
            let members = |index: &Index| index.snapshot().of(ResourceKind::Address).members(service).cloned().collect::<Vec<_>>();
            prop_assert_eq!(members(&index), members(&fresh));
        }
    }
}
