//! Random changes over a small world, and what remains of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use trefoil_api::crd;
use trefoil_api::mesh_config::MeshConfig;
use trefoil_api::proto::trefoil::v1::{Authority, Plane, PodPlacement};
use trefoil_api::routes;

use crate::facts::{
    Endpoint, Labels, Namespace, NetworkPolicy, Node, Pod, PolicyObject, Service, ServicePort, Slice,
};
use crate::{Change, NodePlacements, ObjectKey, RouteKind};

mod gateway;

/// The namespaces and accounts in which waypoints may be.
pub(super) use gateway::WAYPOINTS;

/// The objects that exist in the end. Of policies and the configuration also the last good version.
#[derive(Default)]
pub(super) struct EndState {
    objects: BTreeMap<String, Change>,
    good: BTreeMap<String, Change>,
    placements: BTreeMap<String, BTreeMap<String, PodPlacement>>,
}

impl EndState {
    pub(super) fn note(&mut self, change: &Change) {
        let (id, present, good) = match change {
            Change::Namespace(name, facts) => (format!("namespace {name}"), facts.is_some(), None),
            Change::Node(name, facts) => {
                if facts.is_none() {
                    self.placements.remove(name);
                }
                (format!("node {name}"), facts.is_some(), None)
            }
            Change::Pod(key, facts) => (format!("pod {key}"), facts.is_some(), None),
            Change::Service(key, facts) => (format!("service {key}"), facts.is_some(), None),
            Change::Slice(key, facts) => (format!("slice {key}"), facts.is_some(), None),
            Change::NetworkPolicy(key, facts) => (format!("network {key}"), facts.is_some(), None),
            Change::Authorization(key, object) => (
                format!("authorization {key}"),
                object.is_some(),
                object
                    .as_ref()
                    .map(|one| crd::authorization_policy(&one.object).is_ok()),
            ),
            Change::PeerAuthentication(key, object) => (
                format!("peer {key}"),
                object.is_some(),
                object
                    .as_ref()
                    .map(|one| crd::peer_authentication(&one.object).is_ok()),
            ),
            Change::Gateway(key, facts) => (format!("gateway {key}"), facts.is_some(), None),
            Change::Hindered(key, why) => (format!("hindrance {key}"), why.is_some(), None),
            Change::GatewayClass(name, facts) => (format!("class {name}"), facts.is_some(), None),
            Change::ReferenceGrant(key, facts) => (format!("grant {key}"), facts.is_some(), None),
            Change::Route(kind, key, object) => (
                format!("{} {key}", kind.name()),
                object.is_some(),
                object.as_ref().map(|one| match kind {
                    RouteKind::Http => routes::http_route(&one.object).is_ok(),
                    RouteKind::Grpc => routes::grpc_route(&one.object).is_ok(),
                }),
            ),
            Change::MeshConfig(text) => (
                "config".into(),
                text.is_some(),
                text.as_ref().map(|text| MeshConfig::parse(text).is_ok()),
            ),
            Change::Authority(_) => ("authority".into(), true, None),
            Change::PlacementsForgotten(node) => {
                self.placements.remove(node);
                return;
            }
            Change::Placements(report) => {
                let known = self.placements.entry(report.node.clone()).or_default();
                if report.snapshot {
                    known.clear();
                }
                for uid in &report.removed {
                    known.remove(uid);
                }
                for pod in &report.pods {
                    known.insert(pod.uid.clone(), pod.clone());
                }
                return;
            }
        };
        if !present {
            self.good.remove(&id);
            self.objects.remove(&id);
            return;
        }
        if good == Some(true) {
            self.good.insert(id.clone(), change.clone());
        }
        self.objects.insert(id, change.clone());
    }

    pub(super) fn changes(self) -> Vec<Change> {
        let reports = self.placements.into_iter().map(|(node, pods)| {
            Change::Placements(NodePlacements {
                node,
                snapshot: true,
                pods: pods.into_values().collect(),
                removed: Vec::new(),
            })
        });
        let good = self.good.into_values();
        good.chain(self.objects.into_values()).chain(reports).collect()
    }
}

fn authority(key: u8) -> Authority {
    Authority {
        key_identifier: vec![key].into(),
        roots: "roots".into(),
    }
}

fn key() -> impl Strategy<Value = ObjectKey> {
    let namespace = prop::sample::select(&["shop", "shop", "other", "trefoil-system"][..]);
    let name = prop::sample::select(&["web", "api", "db"][..]);
    (namespace, name).prop_map(|(namespace, name)| ObjectKey::new(namespace, name))
}

fn labels() -> impl Strategy<Value = Labels> {
    let app = prop::sample::select(&["web", "api"][..]);
    (app, prop::option::weighted(0.3, gateway::choice())).prop_map(|(app, chosen)| {
        let mut labels = chosen.unwrap_or_default();
        labels.insert("app".into(), app.into());
        labels
    })
}

fn address() -> impl Strategy<Value = std::net::IpAddr> {
    prop::sample::select(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"][..])
        .prop_map(|address| address.parse().expect("address"))
}

fn node() -> impl Strategy<Value = String> {
    prop::sample::select(&["n1", "n2"][..]).prop_map(String::from)
}

fn pod() -> impl Strategy<Value = Pod> {
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        any::<bool>(),
        prop::sample::select(&[None, Some(Plane::Node)][..]),
    );
    let uid = prop::sample::select(&["u1", "u2", "u3"][..]);
    let account = prop::sample::select(&["web", "web", "w"][..]);
    (
        (uid, account),
        labels(),
        prop::collection::btree_set(address(), 0..3),
        node(),
        flags,
    )
        .prop_map(
            |((uid, account), labels, addresses, node, (host_network, terminal, ready, redirection))| Pod {
                uid: uid.into(),
                ports: vec![("web".into(), 8080)],
                labels,
                addresses: addresses.into_iter().collect(),
                node,
                service_account: account.into(),
                hostname: (uid == "u1").then(|| (uid.to_owned(), "web".to_owned())),
                host_network,
                terminal,
                ready,
                owner: None,
                redirection,
            },
        )
}

fn service() -> impl Strategy<Value = Service> {
    let chosen = prop::option::weighted(0.5, gateway::choice());
    (any::<bool>(), any::<bool>(), chosen).prop_map(|(headless, node_local, chosen)| Service {
        labels: chosen.unwrap_or_default(),
        addresses: if headless {
            Vec::new()
        } else {
            vec!["10.96.0.1".parse().expect("address")]
        },
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            target: Some(8080),
            ..ServicePort::default()
        }],
        node_local,
        ..Service::default()
    })
}

fn slice() -> impl Strategy<Value = Slice> {
    let service = prop::sample::select(&["web", "api"][..]);
    let port = prop::sample::select(&[8080u16, 9090][..]);
    let endpoint =
        (prop::option::of(key()), address(), any::<bool>()).prop_map(|(pod, address, ready)| Endpoint {
            addresses: vec![address],
            pod,
            ready,
            ..Endpoint::default()
        });
    (service, port, prop::collection::vec(endpoint, 0..3)).prop_map(|(service, port, endpoints)| Slice {
        service: service.into(),
        ports: vec![("http".into(), port)],
        endpoints,
    })
}

fn object(spec: serde_json::Value) -> PolicyObject {
    PolicyObject {
        object: json!({"spec": spec}),
        ..PolicyObject::default()
    }
}

fn authorization() -> impl Strategy<Value = PolicyObject> {
    let selector = json!({"matchLabels": {"app": "web"}});
    prop::sample::select(vec![
        json!({"rules": [{}]}),
        json!({"action": "Deny", "rules": [{"to": [{"ports": [80]}]}]}),
        json!({"selector": selector, "rules": [{"from": [{"namespaces": ["shop"]}]}]}),
        json!({"targetRefs": [{"kind": "Service", "name": "web"}], "action": "Deny", "rules": [{}]}),
        json!({"selector": selector, "rules": [{"to": [{"methods": ["GET"]}]}]}),
        json!({"rules": [{"to": [{"ports": [0]}]}]}),
        json!({"selector": selector, "rules": [{"to": [{"ports": [0]}]}]}),
        json!({"targetRefs": [{"kind": "Service", "name": "api"}], "action": "Maybe"}),
        json!({"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "w"}], "rules": [{"to": [{"methods": ["GET"]}]}]}),
        json!({"rules": [{"to": [{"paths": ["/api/*"]}]}]}),
        json!({"action": "Audit", "misspelt": 1}),
    ])
    .prop_map(object)
}

fn peer_authentication() -> impl Strategy<Value = PolicyObject> {
    let selector = json!({"matchLabels": {"app": "web"}});
    prop::sample::select(vec![
        json!({"mtls": "Strict"}),
        json!({"mtls": "Permissive"}),
        json!({"selector": selector, "mtls": "Strict", "ports": {"80": "Permissive"}}),
        json!({"selector": selector, "ports": {"81": "Strict"}}),
        json!({"ports": {"80": "Strict"}}),
        json!({"mtls": "Perhaps"}),
        json!({"selector": selector, "mtls": "Perhaps"}),
    ])
    .prop_map(object)
}

fn placements() -> impl Strategy<Value = NodePlacements> {
    let uid = || prop::sample::select(&["u1", "u2", "u3"][..]).prop_map(String::from);
    let plane = prop::sample::select(&[Plane::None, Plane::Node, Plane::Sidecar][..]);
    let pod = (uid(), key(), plane, any::<bool>()).prop_map(|(uid, key, plane, withdrawing)| PodPlacement {
        uid,
        namespace: key.namespace,
        name: key.name,
        plane: plane.into(),
        withdrawing,
    });
    (
        node(),
        any::<bool>(),
        prop::collection::vec(pod, 0..3),
        prop::collection::vec(uid(), 0..2),
    )
        .prop_map(|(node, snapshot, pods, removed)| NodePlacements {
            node,
            snapshot,
            pods,
            removed,
        })
}

fn config() -> impl Strategy<Value = String> {
    prop::sample::select(
        &[
            "",
            "defaultMtls: Strict",
            "defaultMtls: Permissive",
            "trustDomain: example.org",
            "outbound: RegistryOnly\nconnectionMaxAge: 1m",
            "misspelt: true",
        ][..],
    )
    .prop_map(String::from)
}

/// The `spec` of one about pods of its own namespace, or of those with some isolation; or not understood.
fn network_policy() -> impl Strategy<Value = Value> {
    let isolation = prop::sample::select(&["shared", "namespace"][..]);
    let port = prop::sample::select(vec![json!(80), json!("web"), json!(0)]);
    (labels(), labels(), prop::option::of(isolation), port).prop_map(|(pods, peers, isolation, port)| {
        let mut peer = json!({ "podSelector": { "matchLabels": peers } });
        if let Some(isolation) = isolation {
            peer["namespaceSelector"] = json!({ "matchLabels": { "trefoil.dev/isolation": isolation } });
        }
        let ingress = json!([{ "from": [peer], "ports": [{ "port": port }] }]);
        json!({ "podSelector": { "matchLabels": pods }, "ingress": ingress })
    })
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let namespaces = prop::sample::select(&["shop", "other"][..]).prop_map(String::from);
    let isolation = prop::sample::select(&["shared", "namespace"][..]);
    let isolation = (isolation, prop::option::of(gateway::choice())).prop_map(|(value, chosen)| {
        let mut labels = chosen.unwrap_or_default();
        labels.insert("trefoil.dev/isolation".into(), value.into());
        Namespace { labels }
    });
    let zone = prop::sample::select(&["a", "b"][..]).prop_map(|zone| Node {
        zone: zone.into(),
        ..Node::default()
    });
    prop_oneof![
        1 => (namespaces, prop::option::of(isolation)).prop_map(|(name, facts)| Change::Namespace(name, facts)),
        1 => (node(), prop::option::of(zone)).prop_map(|(name, facts)| Change::Node(name, facts)),
        4 => (key(), prop::option::weighted(0.8, pod())).prop_map(|(key, facts)| Change::Pod(key, facts)),
        2 => (key(), prop::option::weighted(0.8, service())).prop_map(|(key, facts)| Change::Service(key, facts)),
        3 => (key(), prop::option::weighted(0.8, slice())).prop_map(|(key, facts)| Change::Slice(key, facts)),
        2 => (key(), prop::option::of(network_policy())).prop_map(|(key, spec)| {
            let facts = spec.map(|spec| NetworkPolicy::read(&key.namespace, &spec));
            Change::NetworkPolicy(key, facts)
        }),
        3 => (key(), prop::option::weighted(0.8, authorization())).prop_map(|(key, one)| Change::Authorization(key, one)),
        3 => (key(), prop::option::weighted(0.8, peer_authentication())).prop_map(|(key, one)| Change::PeerAuthentication(key, one)),
        8 => gateway::change(),
        1 => prop::option::weighted(0.8, config()).prop_map(Change::MeshConfig),
        1 => any::<u8>().prop_map(|key| Change::Authority(authority(key))),
        2 => placements().prop_map(Change::Placements),
        1 => node().prop_map(Change::PlacementsForgotten),
    ]
}
