use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use trefoil_api::proto::trefoil::v1::Plane;

use super::{PodFacts, annotations, host, pod_table};

fn facts() -> PodFacts {
    PodFacts {
        has_sidecar: true,
        captures_dns: true,
        excluded_inbound: [9100].into(),
        excluded_outbound: [25, 3306].into(),
        excluded_destinations: ["10.9.0.0/16".parse().unwrap(), "fd09::/32".parse().unwrap()].into(),
        probe_ports: [8080].into(),
    }
}

#[test]
fn tables_of_each_plane() {
    insta::assert_snapshot!("none", pod_table(&facts(), Plane::None));
    insta::assert_snapshot!("node", pod_table(&facts(), Plane::Node));
    insta::assert_snapshot!("sidecar", pod_table(&facts(), Plane::Sidecar));
    insta::assert_snapshot!("node_plain", pod_table(&PodFacts::default(), Plane::Node));
}

#[test]
fn table_of_the_host() {
    let pods = ["10.244.1.7".parse().unwrap(), "fd00:10:244:1::7".parse().unwrap()].into();
    insta::assert_snapshot!("host", host::host_table(0, &pods));
}

#[test]
fn planes_differ_in_target_chains_only() {
    let node = pod_table(&facts(), Plane::Node);
    for plane in [Plane::None, Plane::Sidecar] {
        let other = pod_table(&facts(), plane);
        for (left, right) in node.chains.iter().zip(&other.chains) {
            assert_eq!(left.name, right.name);
            assert!(left == right || left.hook.is_none(), "{}", left.name);
        }
    }
}

#[test]
fn queries_are_redirected_where_they_are_captured_and_nothing_excludes_them() {
    let captured = |facts: &PodFacts, plane| {
        let table = pod_table(facts, plane);
        let mut chains = table.chains.iter();
        let chain = chains.find(|chain| chain.name == "dns").unwrap();
        chain.syntax().unwrap().join("\n")
    };
    assert!(captured(&facts(), Plane::Node).contains("15053"));
    assert!(captured(&facts(), Plane::Sidecar).contains("15153"));
    assert_eq!(captured(&facts(), Plane::None), "");
    assert_eq!(captured(&PodFacts::default(), Plane::Node), "");
    let excluded = PodFacts {
        excluded_outbound: [53].into(),
        ..facts()
    };
    assert_eq!(captured(&excluded, Plane::Node), "");
}

#[test]
fn ports_of_probes_hooks_and_names_are_found() {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"annotations": {
            "trefoil.dev/exclude-inbound-ports": "9100, 9200",
            "trefoil.dev/exclude-outbound-cidrs": "10.1.2.3/8,fd00::1",
        }},
        "spec": {
            "initContainers": [{"name": "trefoil-sidecar", "readinessProbe": {"httpGet": {"port": 15021}}}],
            "containers": [{
                "name": "web",
                "ports": [{"name": "http", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"port": "http"}},
                "startupProbe": {"grpc": {"port": 9000}},
                "readinessProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"preStop": {"tcpSocket": {"port": 8081}}},
            }],
        },
    }))
    .unwrap();
    let facts = annotations::facts(&pod).unwrap();
    assert!(facts.has_sidecar);
    assert_eq!(facts.probe_ports, [8080, 8081, 9000, 15021].into());
    assert_eq!(facts.excluded_inbound, [9100, 9200].into());
    let ranges: Vec<String> = facts
        .excluded_destinations
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["10.0.0.0/8", "fd00::1/128"]);
}

proptest! {
    #[test]
    fn every_rule_can_be_written_for_the_kernel(
        inbound in prop::collection::btree_set(1u16.., 0..6),
        outbound in prop::collection::btree_set(1u16.., 0..6),
        addresses in prop::collection::btree_set((any::<[u8; 16]>(), 0u8..=128), 0..6),
        has_sidecar: bool,
        captures_dns: bool,
    ) {
        let ranges = addresses.into_iter().map(|(address, length)| {
            ipnet::IpNet::new(std::net::Ipv6Addr::from(address).into(), length).unwrap().trunc()
        });
        let facts = PodFacts {
            has_sidecar,
            captures_dns,
            excluded_inbound: inbound.clone(),
            excluded_outbound: outbound,
            excluded_destinations: ranges.collect(),
            probe_ports: inbound,
        };
        for plane in [Plane::None, Plane::Node, Plane::Sidecar] {
            for chain in pod_table(&facts, plane).chains {
                prop_assert!(chain.syntax().is_ok(), "{}", chain.name);
            }
        }
    }
}
