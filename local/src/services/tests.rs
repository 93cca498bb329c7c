use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;

use super::{slices, views};

fn service(extra: serde_json::Value) -> Service {
    let mut object = json!({
        "metadata": { "namespace": "shop", "name": "cache" },
        "spec": { "selector": { "app": "cache" }, "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
                  "ports": [{ "name": "redis", "port": 80, "targetPort": "redis" }] },
    });
    json_patch::merge(&mut object, &extra);
    serde_json::from_value(object).unwrap()
}

fn pod(extra: serde_json::Value) -> Pod {
    let mut object = json!({
        "metadata": { "namespace": "shop", "name": "cache-0", "labels": { "app": "cache" } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "ports": [{ "name": "redis", "containerPort": 6379 }] }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": "10.244.1.2" }, { "ip": "fd00::2" }],
                    "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    json_patch::merge(&mut object, &extra);
    serde_json::from_value(object).unwrap()
}

#[test]
fn named_target_ports_are_resolved_and_both_families_have_a_slice() {
    let views = views(&[service(json!({}))], &[pod(json!({}))]);
    assert_eq!(views[0].ports[0].target, 6379);
    let slices = slices(&views[0]).unwrap();
    let families: Vec<_> = slices.iter().map(|slice| slice.address_type.as_str()).collect();
    assert_eq!(families, ["IPv4", "IPv6"]);
}

#[test]
fn pods_that_are_not_selected_or_have_ended_are_no_endpoints() {
    let other = pod(json!({ "metadata": { "labels": { "app": "other" } } }));
    let ended = pod(json!({ "status": { "phase": "Succeeded" } }));
    let elsewhere = pod(json!({ "metadata": { "namespace": "other" } }));
    let views = views(&[service(json!({}))], &[other, ended, elsewhere]);
    assert!(views[0].endpoints.is_empty());
}

#[test]
fn a_pod_that_is_not_ready_is_an_endpoint_that_takes_nothing() {
    let starting = pod(json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }));
    let views = views(&[service(json!({}))], &[starting]);
    assert!(views[0].endpoints.iter().all(|endpoint| !endpoint.ready));
}

#[test]
fn pods_of_a_stateful_set_have_names_below_the_service() {
    let member = pod(json!({ "spec": { "hostname": "cache-0", "subdomain": "cache" } }));
    let headless = service(json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } }));
    let views = views(&[headless], &[member]);
    assert!(views[0].headless && views[0].addresses.is_empty());
    assert_eq!(views[0].endpoints[0].hostname.as_deref(), Some("cache-0"));
}
