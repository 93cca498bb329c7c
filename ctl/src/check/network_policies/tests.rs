use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::{Value, json};

use super::{Facts, findings};

fn pod(name: &str, redirection: &str, address: &str) -> Pod {
    let (namespace, name) = name.split_once('/').unwrap();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace, "name": name, "labels": { "app": name },
            "annotations": { "trefoil.dev/redirection": redirection },
        },
        "spec": { "containers": [{ "name": "c", "ports": [
            { "name": "web", "containerPort": 8080 }, { "name": "tunnel", "containerPort": 15008 },
        ] }] },
        "status": { "phase": "Running", "podIP": address },
    }))
    .unwrap()
}

/// A server and a client in the mesh, one client outside it, another namespace, the control plane; and a policy
/// for the server or the client.
fn found(subject: &str, spec: Value) -> Vec<(String, String)> {
    let names = ["shop", "other", "trefoil-system"];
    let namespaces: Vec<Namespace> = names
        .iter()
        .map(|name| {
            let labels = json!({ "kubernetes.io/metadata.name": name });
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
        })
        .collect();
    let mut control_plane = pod("trefoil-system/trefoil-control-plane", "none", "10.0.0.9");
    control_plane.metadata.annotations = None;
    let pods = [
        pod("shop/server", "node", "10.0.0.1"),
        pod("shop/client", "sidecar", "10.0.0.2"),
        pod("shop/stranger", "none", "10.0.0.3"),
        pod("other/client", "node", "10.0.1.2"),
        control_plane,
    ];
    let mut spec = spec;
    spec["podSelector"] = json!({ "matchLabels": { "app": subject } });
    let policy =
        serde_json::from_value(json!({ "metadata": { "namespace": "shop", "name": "p" }, "spec": spec }));
    findings(&Facts::of(&namespaces, &pods, vec![policy.unwrap()]))
}

fn of(app: &str) -> Value {
    json!([{ "podSelector": { "matchLabels": { "app": app } } }])
}

const BLOCKS: &str = "and not at 15008";
const MOOT: &str = "lets in nothing of what they carry";

/// Rules of who comes in, what is found of them, and in words.
fn incoming() -> Vec<(Value, Option<&'static str>, &'static str)> {
    let udp = json!([{ "ports": [{ "port": 53, "protocol": "UDP" }] }]);
    let everywhere = json!([{ "namespaceSelector": {} }]);
    let elsewhere = json!([{
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "other" } }, "podSelector": {},
    }]);
    vec![
        (json!([{}]), None, "everything is let in"),
        (json!([]), None, "nobody is let in, by whichever way"),
        (
            json!([{ "ports": [{ "port": 8080 }] }]),
            Some(BLOCKS),
            "an application's port alone",
        ),
        (
            json!([{ "ports": [{ "port": "web" }] }]),
            Some(BLOCKS),
            "by its name",
        ),
        (udp, None, "another protocol"),
        (
            json!([{ "ports": [{ "port": 8080 }, { "port": 15008 }] }]),
            None,
            "both",
        ),
        (
            json!([{ "ports": [{ "port": 8080 }, { "port": "tunnel" }] }]),
            None,
            "both, by name",
        ),
        (
            json!([{ "ports": [{ "port": 8000, "endPort": 16000 }] }]),
            None,
            "a range with both",
        ),
        (
            json!([{ "from": of("stranger"), "ports": [{ "port": 8080 }] }]),
            None,
            "a client outside the mesh",
        ),
        (
            json!([{ "from": of("client"), "ports": [{ "port": 8080 }] }]),
            Some(BLOCKS),
            "a client in it",
        ),
        (
            json!([{ "from": elsewhere, "ports": [{ "port": 8080 }] }]),
            Some(BLOCKS),
            "one of another namespace",
        ),
        (
            json!([{ "from": [{ "ipBlock": { "cidr": "10.0.1.0/24" } }], "ports": [{ "port": 8080 }] }]),
            Some(BLOCKS),
            "one by its address",
        ),
        (
            json!([{ "from": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }], "ports": [{ "port": 8080 }] }]),
            None,
            "addresses of nobody here",
        ),
        (
            json!([{ "from": of("client"), "ports": [{ "port": 8080 }] }, { "from": of("client"), "ports": [{ "port": 15008 }] }]),
            None,
            "two rules for one client",
        ),
        (
            json!([{ "from": of("client"), "ports": [{ "port": 8080 }] }, { "from": everywhere, "ports": [{ "port": 15008 }] }]),
            Some(MOOT),
            "tunnels of everybody",
        ),
        (
            json!([{ "ports": [{ "port": 15008 }] }]),
            Some(MOOT),
            "tunnels alone: nothing of what they carry",
        ),
        (
            json!([{ "from": of("client") }]),
            None,
            "one client at every port",
        ),
    ]
}

#[test]
fn what_a_policy_of_who_comes_in_does_to_tunnels() {
    for (ingress, expected, why) in incoming() {
        let found = found(
            "server",
            json!({ "policyTypes": ["Ingress"], "ingress": ingress }),
        );
        match expected {
            None => assert!(found.is_empty(), "{why}: {found:?}"),
            Some(text) => {
                assert_eq!(found.len(), 1, "{why}: {found:?}");
                assert!(found[0].0.contains(text), "{why}: {found:?}");
                assert!(
                    found[0].0.starts_with("networkpolicy shop/p "),
                    "{why}: {found:?}"
                );
                assert!(found[0].1.contains("15008"), "{why}: {found:?}");
            }
        }
    }
}

#[test]
fn what_a_policy_of_what_goes_out_does_to_tunnels() {
    let to_server = |ports: Value| json!({ "to": of("server"), "ports": ports });
    let to_control_plane = json!({ "to": [{ "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": "trefoil-control-plane" } } }], "ports": [{ "port": 15012 }] });
    for (egress, expected, why) in [
        (json!([{}]), vec![], "everything"),
        (
            json!([
                to_server(json!([{ "port": 8080 }, { "port": 15008 }])),
                to_control_plane
            ]),
            vec![],
            "all that is needed",
        ),
        (
            json!([to_server(json!([{ "port": 8080 }])), to_control_plane]),
            vec![BLOCKS],
            "no tunnels",
        ),
        (
            json!([to_server(json!([{ "port": 15008 }]))]),
            vec!["does not let shop/client reach the control plane"],
            "no control plane for a sidecar",
        ),
    ] {
        let found = found("client", json!({ "policyTypes": ["Egress"], "egress": egress }));
        assert_eq!(found.len(), expected.len(), "{why}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.0.contains(expected), "{why}: {found:?}");
        }
    }
    // The node's proxy asks the control plane from a pod of its own.
    let ambient = found("server", json!({ "egress": [{ "to": of("nobody") }] }));
    assert!(
        ambient
            .iter()
            .all(|(finding, _)| !finding.contains("control plane")),
        "{ambient:?}"
    );
}

#[test]
fn a_policy_that_selects_nobody_in_the_mesh_is_no_concern() {
    let found = found(
        "stranger",
        json!({ "ingress": [{ "ports": [{ "port": 8080 }] }] }),
    );
    assert!(found.is_empty(), "{found:?}");
}
