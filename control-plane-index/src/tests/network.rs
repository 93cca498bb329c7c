//! What NetworkPolicies put on workloads.

use serde_json::{Value, json};
use trefoil_api::names::extension;
use trefoil_api::proto::trefoil::v1::network_peer::Peer;
use trefoil_api::proto::trefoil::v1::{Network, PortRange};

use super::{WEB, index, key, pod, workload};
use crate::facts::{Namespace, NetworkPolicy, Pod};
use crate::{Change, Index, ObjectKey};

const CLIENT: &str = "Kubernetes//Pod/other/client";

fn network(index: &Index, name: &str) -> Network {
    let workload = workload(index, name);
    let ours = workload
        .extensions
        .iter()
        .find(|one| one.name == extension::NETWORK);
    let config = ours.and_then(|one| one.config.as_ref());
    config.map_or_else(Network::default, |config| {
        prost::Message::decode(config.value.as_slice()).expect("decodes")
    })
}

fn client() -> ObjectKey {
    ObjectKey::new("other", "client")
}

fn team(name: &str) -> Change {
    let labels = [("team".to_owned(), name.to_owned())].into();
    Change::Namespace("other".into(), Some(Namespace { labels }))
}

fn applied(name: &str, spec: Value) -> Change {
    Change::NetworkPolicy(key(name), Some(NetworkPolicy::read("shop", &spec)))
}

/// A server with a named port, and a client in another namespace.
fn two() -> Index {
    let server = Pod {
        ports: vec![("http".into(), 8080)],
        ..pod("10.0.0.1")
    };
    index(vec![
        team("a"),
        Change::Pod(key("web"), Some(server)),
        Change::Pod(client(), Some(pod("10.0.0.2"))),
    ])
}

fn fence() -> Value {
    json!({
        "podSelector": { "matchLabels": { "app": "web" } },
        "ingress": [{
            "from": [{ "namespaceSelector": { "matchLabels": { "team": "a" } } }],
            "ports": [{ "port": "http" }, { "port": 90, "endPort": 99 }],
        }],
    })
}

#[test]
fn a_policy_is_on_those_that_it_selects_and_its_groups_on_those_that_it_lets_in() {
    let mut index = two();
    assert_eq!(network(&index, WEB), Network::default());
    index.apply(applied("fence", fence()));
    let changed = index.flush();
    assert_eq!(
        changed.of(crate::snapshot::ResourceKind::Address).len(),
        2,
        "both ends at once"
    );
    let server = network(&index, WEB);
    assert_eq!(server.policies[0].name, "shop/fence");
    let rule = &server.policies[0].rules[0];
    let range = |first, last| PortRange { first, last };
    assert_eq!(rule.ports, vec![range(8080, 8080), range(90, 99)]);
    let groups = network(&index, CLIENT).groups;
    assert_eq!(groups.len(), 1);
    assert_eq!(rule.peers[0].peer, Some(Peer::Group(groups[0].clone())));
    assert!(server.groups.is_empty(), "it is in no namespace of that team");

    index.apply(team("b"));
    index.flush();
    assert_eq!(
        network(&index, CLIENT),
        Network::default(),
        "no longer of the group"
    );
    index.apply(team("a"));
    index.apply(Change::NetworkPolicy(key("fence"), None));
    index.flush();
    assert_eq!(network(&index, WEB), Network::default());
    assert_eq!(
        network(&index, CLIENT),
        Network::default(),
        "no policy names the group"
    );
}

#[test]
fn a_group_is_named_for_as_long_as_any_policy_does() {
    let mut index = two();
    index.apply(applied("one", fence()));
    index.apply(applied("two", fence()));
    index.apply(Change::NetworkPolicy(key("one"), None));
    index.flush();
    assert_eq!(network(&index, CLIENT).groups.len(), 1);
    assert_eq!(network(&index, WEB).policies.len(), 1);
}

#[test]
fn a_port_that_the_pod_does_not_have_is_not_every_port() {
    let mut index = two();
    index.apply(applied(
        "fence",
        json!({ "ingress": [{ "ports": [{ "port": "grpc" }] }] }),
    ));
    index.flush();
    assert!(network(&index, WEB).policies[0].rules.is_empty());
}

#[test]
fn a_policy_about_what_goes_out_lets_everything_in() {
    let mut index = two();
    index.apply(applied("out", json!({ "policyTypes": ["Egress"] })));
    index.flush();
    assert_eq!(network(&index, WEB), Network::default());
}

#[test]
fn the_host_s_network_is_under_no_policy_and_in_no_group() {
    let mut index = two();
    for (key, address) in [(key("web"), "10.0.0.1"), (client(), "10.0.0.2")] {
        let pod = Pod {
            host_network: true,
            ..pod(address)
        };
        index.apply(Change::Pod(key, Some(pod)));
    }
    index.apply(applied("fence", fence()));
    index.flush();
    assert_eq!(network(&index, WEB), Network::default());
    assert_eq!(network(&index, CLIENT), Network::default());
}

#[test]
fn one_that_is_not_understood_closes_what_it_selects_and_is_told_of() {
    let mut index = two();
    index.apply(applied("good", fence()));
    index.apply(applied(
        "bad",
        json!({ "ingress": [{ "ports": [{ "port": 0 }] }] }),
    ));
    index.flush();
    let policies = network(&index, WEB).policies;
    assert_eq!(
        (policies[0].name.as_str(), policies[0].rules.len()),
        ("shop/bad", 0)
    );
    assert_eq!(
        (policies[1].name.as_str(), policies[1].rules.len()),
        ("shop/good", 1)
    );
    let found = || index.findings().collect::<Vec<String>>();
    assert_eq!(
        found(),
        vec![
            "networkpolicy shop/bad: lets nothing in, since it is not understood: ingress[0]: 0 is not a port (1 to 65535)"
        ]
    );
}
