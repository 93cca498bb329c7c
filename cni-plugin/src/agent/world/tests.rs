use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use trefoil_api::proto::trefoil::v1::Plane;

use super::{Settings, World};
use crate::attachment::Attachment;

const SETTINGS: Settings = Settings {
    pod_overrides: true,
    dns_capture: true,
};

fn pod(uid: &str, more: &serde_json::Value) -> Pod {
    let mut whole = json!({
        "metadata": {"name": uid, "namespace": "shop", "uid": uid},
        "spec": {"containers": [{"name": "c"}]},
    });
    for (key, value) in more.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn attachment(uid: &str, container: &str) -> Attachment {
    Attachment {
        uid: uid.into(),
        namespace: "shop".into(),
        name: uid.into(),
        container_id: container.into(),
        netns: "/run/netns/x".into(),
        addresses: ["10.0.0.1".parse().unwrap()].into(),
        identity: None,
        service_account: String::new(),
    }
}

fn ambient() -> World {
    let mut world = World::restored(Vec::new());
    let labels = [("trefoil.dev/dataplane-mode".into(), "ambient".into())].into();
    world.set_namespaces([("shop".into(), labels)].into());
    world.set_settings(SETTINGS);
    world
}

#[test]
fn a_pod_is_undecided_until_its_namespace_and_the_configuration_are_known() {
    let mut world = World::restored(Vec::new());
    world.set_pod(pod("a", &json!({})), true);
    assert!(world.desired("a").unwrap().wish.is_err());
    world.set_namespace("shop".into(), Some([].into()));
    assert!(world.desired("a").unwrap().wish.is_err());
    assert!(world.last_known().is_none());
    world.set_settings(SETTINGS);
    assert!(world.last_known().is_some());
    assert_eq!(world.desired("a").unwrap().wish.unwrap().plane, Plane::None);
    assert!(world.meshed_addresses().is_empty());
}

#[test]
fn what_a_list_lacks_ended_unless_only_a_call_brought_it() {
    let mut world = ambient();
    world.attach(attachment("old", "c0"), false);
    world.set_pod(pod("a", &json!({})), true);
    world.set_pod(pod("new", &json!({})), false);
    world.attach(attachment("new", "c1"), true);
    let gone = world.set_pods(vec![pod("b", &json!({}))]);
    assert_eq!(gone, ["a".into(), "old".into()].into());
    assert!(world.desired("new").unwrap().fresh);
    assert_eq!(world.uids(), ["b", "new"]);
}

#[test]
fn a_network_that_was_replaced_is_not_taken_down_with_the_old_one() {
    let mut world = ambient();
    world.set_pod(pod("a", &json!({})), true);
    world.attach(attachment("a", "c1"), true);
    world.attach(attachment("a", "c2"), true);
    assert!(!world.detach("a", "c1"));
    assert!(world.desired("a").is_some());
    assert!(world.detach("a", "c2"));
    assert!(world.desired("a").is_none());
    world.attach(attachment("a", "c3"), true);
    assert!(world.desired("a").is_some());
}

#[test]
fn ended_pods_and_unclear_annotations() {
    let mut world = ambient();
    world.set_pod(pod("a", &json!({"status": {"phase": "Succeeded"}})), true);
    assert!(world.desired("a").is_none());
    let unclear = json!({"metadata": {
        "name": "b", "namespace": "shop", "uid": "b",
        "annotations": {"trefoil.dev/exclude-inbound-ports": "http"},
    }});
    world.set_pod(pod("b", &unclear), true);
    let wish = world.desired("b").unwrap().wish;
    assert!(wish.unwrap_err().to_string().contains("exclude-inbound-ports"));
    world.set_pod(
        pod("c", &json!({"status": {"podIPs": [{"ip": "10.0.0.3"}]}})),
        true,
    );
    assert!(world.meshed_addresses().contains(&"10.0.0.3".parse().unwrap()));
}

#[test]
fn while_the_mesh_is_removed_every_pod_leaves_it() {
    let mut world = ambient();
    world.set_pod(pod("a", &json!({})), true);
    assert_eq!(world.desired("a").unwrap().wish.unwrap().plane, Plane::Node);
    world.set_removal(Some("requested-1".into()));
    let desired = world.desired("a").unwrap();
    assert!(desired.leaves);
    assert_eq!(desired.wish.unwrap().plane, Plane::None);
    assert_eq!(
        world.last_known().unwrap().removal.as_deref(),
        Some("requested-1")
    );
    // Also those of which nothing else can be said.
    let unclear = json!({"metadata": {"name": "b", "namespace": "elsewhere", "uid": "b",
        "annotations": {"trefoil.dev/exclude-inbound-ports": "none"}}});
    world.set_pod(pod("b", &unclear), true);
    assert_eq!(world.desired("b").unwrap().wish.unwrap().plane, Plane::None);
    world.set_removal(None);
    assert_eq!(world.desired("a").unwrap().wish.unwrap().plane, Plane::Node);
    assert!(world.desired("b").unwrap().wish.is_err());
}

#[test]
fn queries_are_captured_unless_a_label_or_the_mesh_says_otherwise() {
    let captured = |world: &World| {
        world
            .desired("a")
            .unwrap()
            .wish
            .map(|wish| wish.facts.captures_dns)
    };
    let mut world = ambient();
    world.set_pod(pod("a", &json!({})), true);
    assert_eq!(captured(&world), Ok(true));
    let labelled = |value: &str| {
        let metadata = json!({"metadata": {
            "name": "a", "namespace": "shop", "uid": "a", "labels": {"trefoil.dev/dns-capture": value},
        }});
        pod("a", &metadata)
    };
    world.set_pod(labelled("disabled"), true);
    assert_eq!(captured(&world), Ok(false));
    world.set_pod(labelled("off"), true);
    assert!(captured(&world).unwrap_err().to_string().contains("dns-capture"));
    let mesh = Settings {
        dns_capture: false,
        ..SETTINGS
    };
    world.set_settings(mesh);
    world.set_pod(pod("a", &json!({})), true);
    assert_eq!(captured(&world), Ok(false));
}
