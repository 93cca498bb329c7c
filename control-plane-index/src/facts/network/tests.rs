use serde_json::{Value, json};

use super::super::Labels;
use super::{NetworkPolicy, Peer, Ports, Rule};

fn read(spec: Value) -> NetworkPolicy {
    NetworkPolicy::read("shop", &spec)
}

fn ports(ports: Value) -> Vec<Rule> {
    let read = read(json!({ "podSelector": {}, "ingress": [{ "ports": ports }] }));
    assert_eq!(read.fault, None);
    read.ingress.expect("about what comes in")
}

fn labels(of: &[(&str, &str)]) -> Labels {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    of.iter().map(own).collect()
}

#[test]
fn which_policies_are_about_what_comes_in() {
    for (types, about) in [
        (json!(null), true),
        (json!([]), true),
        (json!(["Ingress"]), true),
        (json!(["Ingress", "Egress"]), true),
        (json!(["Egress"]), false),
    ] {
        let read = read(json!({ "policyTypes": types }));
        assert_eq!(read.ingress.is_some(), about, "{read:?}");
        assert_eq!(read.fault, None);
    }
}

#[test]
fn ports_are_those_of_tcp() {
    let rule = |ports| vec![Rule { peers: vec![], ports }];
    assert_eq!(ports(json!(null)), rule(vec![]));
    assert_eq!(ports(json!([])), rule(vec![]));
    assert_eq!(ports(json!([{}])), rule(vec![Ports::Numbers(1..=u16::MAX)]));
    let both =
        json!([{ "port": 80 }, { "port": 53, "protocol": "UDP" }, { "port": "web", "protocol": "TCP" }]);
    let expected = vec![Ports::Numbers(80..=80), Ports::Named("web".into())];
    assert_eq!(ports(both), rule(expected));
    let range = json!([{ "port": 80, "endPort": 90 }]);
    assert_eq!(ports(range), rule(vec![Ports::Numbers(80..=90)]));
    assert_eq!(
        ports(json!([{ "port": 53, "protocol": "UDP" }])),
        vec![],
        "nothing of TCP"
    );
}

#[test]
fn a_group_is_where_and_which() {
    let of = |peer: Value| {
        let read = read(json!({ "ingress": [{ "from": [peer] }] }));
        assert_eq!(read.fault, None);
        match &read.ingress.expect("about what comes in")[0].peers[0] {
            Peer::Pods(group) => group.clone(),
            other => panic!("{other:?}"),
        }
    };
    let web = json!({ "matchLabels": { "app": "web" } });
    let team = json!({ "matchLabels": { "team": "a" } });
    let own = of(json!({ "podSelector": web }));
    let there = of(json!({ "namespaceSelector": team }));
    let both = of(json!({ "namespaceSelector": team, "podSelector": web }));
    let (a, b) = (labels(&[("team", "a")]), labels(&[("team", "b")]));
    let (web, db) = (labels(&[("app", "web")]), labels(&[("app", "db")]));
    for (group, namespace, of_namespace, of_pod, expected) in [
        (&own, "shop", &a, &web, true),
        (&own, "shop", &a, &db, false),
        (&own, "other", &a, &web, false),
        (&there, "other", &a, &db, true),
        (&there, "other", &b, &db, false),
        (&both, "other", &a, &web, true),
        (&both, "other", &a, &db, false),
        (&both, "other", &b, &web, false),
    ] {
        let has = group.has(namespace, of_namespace, of_pod);
        assert_eq!(has, expected, "{group:?} {namespace} {of_namespace:?} {of_pod:?}");
    }
    assert_ne!(own.name(), both.name());
    assert_ne!(own.name(), there.name());
}

#[test]
fn what_is_not_understood_lets_nothing_in_and_says_why() {
    let from = |peer: Value| json!({ "ingress": [{ "from": [peer] }, {}] });
    let at = |port: Value| json!({ "ingress": [{ "ports": [port] }, {}] });
    for (spec, expected) in [
        (from(json!({})), "ingress[0]: a peer that names nobody"),
        (
            from(json!({ "ipBlock": { "cidr": "all" } })),
            "ingress[0]: \"all\"",
        ),
        (
            from(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["some"] } })),
            "ingress[0]: \"some\"",
        ),
        (
            from(json!({ "ipBlock": { "cidr": "10.0.0.0/8" }, "podSelector": {} })),
            "ingress[0]: a peer with an ipBlock and selectors",
        ),
        (
            from(json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } })),
            "ingress[0]: \"Like\"",
        ),
        (at(json!({ "port": 0 })), "ingress[0]: 0 is not a port"),
        (
            at(json!({ "port": 90, "endPort": 80 })),
            "ingress[0]: a range from port 90 to 80",
        ),
        (at(json!({ "endPort": 80 })), "ingress[0]: an endPort"),
        (
            at(json!({ "port": 1, "protocol": "QUIC" })),
            "ingress[0]: \"QUIC\"",
        ),
        (
            json!({ "policyTypes": ["Sideways"] }),
            "policyTypes: \"Sideways\"",
        ),
        (json!({ "ingress": "all" }), "invalid type"),
    ] {
        let mut spec = spec;
        spec["podSelector"] = json!({ "matchLabels": { "app": "web" } });
        let read = read(spec);
        let fault = read.fault.clone().expect("not understood");
        assert!(fault.starts_with(expected), "{fault}");
        assert_eq!(read.ingress, Some(vec![]), "{fault}");
        assert!(read.selects(&labels(&[("app", "web")])), "{fault}");
        assert!(!read.selects(&labels(&[("app", "db")])), "{fault}");
    }
    let nothing_read = read(json!({ "podSelector": 7 }));
    assert!(nothing_read.selects(&labels(&[("app", "db")])), "every pod");
    assert_eq!(nothing_read.ingress, Some(vec![]));
}
