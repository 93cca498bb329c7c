//! What is made, what leaves and what is removed follows from what is wanted and what there is.

use std::collections::BTreeMap;

use serde_json::json;

use super::plan::{Have, Name, Plan, Wanted, spread, wanted};
use crate::mesh::Node;

fn name(text: &str) -> Name {
    ("shop".into(), text.into())
}

fn have(pods: &[(&str, &[(u32, bool)])]) -> Have {
    let of = |pods: &[(u32, bool)]| pods.iter().copied().collect::<BTreeMap<_, _>>();
    pods.iter()
        .map(|(gateway, pods)| (name(gateway), of(pods)))
        .collect()
}

#[test]
fn pods_follow_the_replicas_and_objects_the_last_pod() {
    let wanted: Wanted = [(name("w"), 2)].into();
    for (there, make, leave, remove) in [
        (have(&[]), vec![1, 2], vec![], false),
        (have(&[("w", &[(1, false)])]), vec![2], vec![], false),
        (
            have(&[("w", &[(1, false), (2, false), (3, false)])]),
            vec![],
            vec![3],
            false,
        ),
        // Asked once is enough.
        (
            have(&[("w", &[(1, false), (2, false), (3, true)])]),
            vec![],
            vec![],
            false,
        ),
        // A pod that leaves and is wanted again comes when it has gone.
        (have(&[("w", &[(1, false), (2, true)])]), vec![], vec![], false),
    ] {
        let plan = Plan::between(&wanted, &there);
        let numbers = |all: &[(Name, u32)]| all.iter().map(|(_, number)| *number).collect::<Vec<_>>();
        assert_eq!(
            (numbers(&plan.make), numbers(&plan.leave)),
            (make, leave),
            "{there:?}"
        );
        assert_eq!(!plan.remove.is_empty(), remove, "{there:?}");
    }
    let leaving = Plan::between(&Wanted::new(), &have(&[("w", &[(1, false), (2, true)])]));
    assert_eq!(leaving.leave, vec![(name("w"), 1)]);
    assert!(leaving.remove.is_empty(), "its Service goes after its last pod");
    let gone = Plan::between(&Wanted::new(), &have(&[("w", &[])]));
    assert_eq!(gone.remove, vec![name("w")]);
}

#[test]
fn only_gateways_of_the_class_are_waypoints() {
    let gateway = |name: &str, class: &str, replicas: Option<&str>| {
        let annotations = replicas.map(|replicas| json!({ "trefoil.dev/replicas": replicas }));
        serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "name": name, "namespace": "shop", "annotations": annotations },
            "spec": { "gatewayClassName": class },
        }))
        .expect("an object")
    };
    let all: [kube::api::DynamicObject; 3] = [
        gateway("w", "trefoil-waypoint", None),
        gateway("x", "trefoil-waypoint", Some("2")),
        gateway("edge", "istio", None),
    ];
    assert_eq!(wanted(all.iter()), [(name("w"), 1), (name("x"), 2)].into());
}

#[test]
fn pods_of_one_waypoint_are_on_different_nodes_while_there_are_some() {
    let nodes = [Node(1), Node(2)];
    assert_eq!(spread(&nodes, &[]), Some(Node(1)));
    assert_eq!(spread(&nodes, &[1]), Some(Node(2)));
    assert_eq!(spread(&nodes, &[1, 2]), Some(Node(1)));
    assert_eq!(spread(&[], &[]), None);
}
