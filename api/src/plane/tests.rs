use super::*;

fn labels(mode: &str) -> Labels {
    Labels::from([(label::DATAPLANE_MODE.to_string(), mode.to_string())])
}

fn decided(namespace: Option<&str>, pod: Option<&str>, has_sidecar: bool, overrides: bool) -> Plane {
    let (namespace, pod) = (namespace.map(labels), pod.map(labels));
    let facts = PodFacts {
        namespace: "shop",
        namespace_labels: namespace.as_ref(),
        labels: pod.as_ref(),
        host_network: false,
        has_sidecar,
    };
    decide(&facts, overrides).expect("known modes").plane
}

#[test]
fn the_pods_label_wins_where_the_mesh_allows_it() {
    for (namespace, pod, sidecar, overrides, plane) in [
        (None, None, true, true, Plane::None),
        (Some("ambient"), None, false, true, Plane::Node),
        (Some("ambient"), None, true, true, Plane::Node),
        (Some("sidecar"), None, true, true, Plane::Sidecar),
        (Some("sidecar"), None, false, true, Plane::Node),
        (Some("ambient"), Some("none"), false, true, Plane::None),
        (Some("ambient"), Some("none"), false, false, Plane::Node),
        (Some("none"), Some("ambient"), false, true, Plane::Node),
        (None, Some("sidecar"), true, true, Plane::Sidecar),
        (None, Some("sidecar"), true, false, Plane::None),
    ] {
        let got = decided(namespace, pod, sidecar, overrides);
        assert_eq!(
            got, plane,
            "{namespace:?} {pod:?} sidecar {sidecar} overrides {overrides}"
        );
    }
}

#[test]
fn unknown_modes_are_refused_with_the_value() {
    let namespace = labels("ambiant");
    let facts = PodFacts {
        namespace: "shop",
        namespace_labels: Some(&namespace),
        ..PodFacts::default()
    };
    let error = decide(&facts, true).expect_err("an unknown mode");
    assert!(error.to_string().contains("ambiant"), "{error}");
}

#[test]
fn host_network_and_the_mesh_itself_are_left_alone_and_said_so() {
    let namespace = labels("ambient");
    let facts = PodFacts {
        namespace_labels: Some(&namespace),
        ..PodFacts::default()
    };
    for facts in [
        PodFacts {
            host_network: true,
            ..facts.clone()
        },
        PodFacts {
            namespace: MESH_NAMESPACE,
            ..facts
        },
    ] {
        let decision = decide(&facts, true).expect("known modes");
        assert_eq!(decision.plane, Plane::None);
        assert!(decision.remark.is_some());
    }
}

#[test]
fn a_gateways_own_pod_takes_part_by_itself_whatever_its_namespace_says() {
    let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    for mode in ["ambient", "sidecar"] {
        let namespace_labels = labels("trefoil.dev/dataplane-mode", mode);
        let own = labels("gateway.networking.k8s.io/gateway-name", "waypoint");
        let pod = PodFacts {
            namespace: "shop",
            namespace_labels: Some(&namespace_labels),
            labels: Some(&own),
            ..PodFacts::default()
        };
        for overrides in [true, false] {
            let decision = decide(&pod, overrides).expect("known mode");
            assert_eq!((decision.plane, decision.remark), (Plane::None, None));
            assert_eq!(wants_sidecar(&pod, overrides), Ok(false));
        }
    }
}

#[test]
fn dns_capture_is_as_the_pod_says_then_its_namespace_then_the_mesh() {
    let labels = |value: &str| Labels::from([(label::DNS_CAPTURE.to_string(), value.to_string())]);
    for (namespace, pod, overrides, mesh, expected) in [
        (None, None, true, true, true),
        (None, None, true, false, false),
        (Some("disabled"), None, true, true, false),
        (Some("enabled"), None, true, false, true),
        (Some("disabled"), Some("enabled"), true, true, true),
        (Some("disabled"), Some("enabled"), false, true, false),
        (None, Some("disabled"), true, true, false),
    ] {
        let (namespace, pod) = (namespace.map(labels), pod.map(labels));
        let facts = PodFacts {
            namespace_labels: namespace.as_ref(),
            labels: pod.as_ref(),
            ..PodFacts::default()
        };
        assert_eq!(captures_dns(&facts, overrides, mesh), Ok(expected), "{facts:?}");
    }
    let unknown = labels("no");
    let facts = PodFacts {
        labels: Some(&unknown),
        ..PodFacts::default()
    };
    assert!(captures_dns(&facts, true, true).is_err());
    assert_eq!(captures_dns(&facts, false, true), Ok(true));
}
