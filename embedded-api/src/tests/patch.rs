use serde_json::{Value, json};

use crate::kinds;
use crate::patch::Patch;

fn strategic(target: &Value, patch: &Value) -> Value {
    let body = patch.to_string();
    let patch = Patch::parse(
        &kinds::POD,
        "application/strategic-merge-patch+json",
        body.as_bytes(),
    )
    .unwrap();
    patch.apply(&kinds::POD, target).unwrap()
}

#[test]
fn strategic_patches_merge_lists_by_their_keys() {
    let pod = json!({
        "metadata": { "labels": { "a": "1", "b": "2" }, "finalizers": ["x"] },
        "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": "R" }, { "type": "Other", "status": "True" }] },
    });
    let patched = strategic(
        &pod,
        &json!({
            "metadata": { "labels": { "a": null, "c": "3" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "New", "status": "True" }] },
        }),
    );
    assert_eq!(patched["metadata"]["labels"], json!({ "b": "2", "c": "3" }));
    assert_eq!(patched["metadata"]["finalizers"], json!(["x"]));
    assert_eq!(
        patched["status"]["conditions"],
        json!([
            { "type": "Ready", "status": "True", "reason": "R" },
            { "type": "Other", "status": "True" },
            { "type": "New", "status": "True" },
        ])
    );
}

#[test]
fn what_would_be_misunderstood_is_refused() {
    let directive = br#"{"spec":{"$patch":"shuffle"}}"#;
    let patch = Patch::parse(&kinds::POD, "application/strategic-merge-patch+json", directive).unwrap();
    assert_eq!(patch.apply(&kinds::POD, &json!({})).unwrap_err().code(), 415);
    let custom = Patch::parse(
        &kinds::AUTHORIZATION_POLICY,
        "application/strategic-merge-patch+json",
        b"{}",
    );
    assert_eq!(custom.unwrap_err().code(), 415);
    assert_eq!(
        Patch::parse(&kinds::POD, "text/plain", b"{}").unwrap_err().code(),
        415
    );
    assert_eq!(
        Patch::parse(&kinds::POD, "application/merge-patch+json", b"{")
            .unwrap_err()
            .code(),
        400
    );
}

#[test]
fn json_and_merge_patches_apply() {
    let json_patch = br#"[{"op":"add","path":"/a","value":1},{"op":"test","path":"/b","value":2}]"#;
    let patch = Patch::parse(&kinds::POD, "application/json-patch+json", json_patch).unwrap();
    assert_eq!(
        patch.apply(&kinds::POD, &json!({ "b": 2 })).unwrap(),
        json!({ "a": 1, "b": 2 })
    );
    assert!(patch.apply(&kinds::POD, &json!({ "b": 3 })).is_err());
    let patch = Patch::parse(
        &kinds::POD,
        "application/merge-patch+json; charset=utf-8",
        br#"{"b":null}"#,
    )
    .unwrap();
    assert_eq!(
        patch.apply(&kinds::POD, &json!({ "a": 1, "b": 2 })).unwrap(),
        json!({ "a": 1 })
    );
}

#[test]
fn the_directives_of_kubectl_are_followed() {
    let service = json!({ "spec": {
        "ports": [{ "port": 80, "name": "http" }, { "port": 81 }, { "port": 82 }],
        "selector": { "app": "web" },
    } });
    let body = json!({ "spec": {
        "$setElementOrder/ports": [{ "port": 82 }, { "port": 80 }, { "port": 83 }],
        "ports": [{ "port": 80, "targetPort": 8080 }, { "port": 81, "$patch": "delete" }, { "port": 83 }],
        "selector": { "$patch": "replace", "tier": "front" },
    } });
    let patch = Patch::Strategic(body);
    assert_eq!(
        patch.apply(&kinds::SERVICE, &service).unwrap(),
        json!({ "spec": {
            "ports": [{ "port": 82 }, { "port": 80, "name": "http", "targetPort": 8080 }, { "port": 83 }],
            "selector": { "tier": "front" },
        } })
    );
    let held = json!({ "metadata": { "finalizers": ["a", "b"] } });
    let body = json!({ "metadata": { "finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"] } });
    let patched = Patch::Strategic(body).apply(&kinds::POD, &held).unwrap();
    assert_eq!(patched["metadata"]["finalizers"], json!(["b", "c"]));
}
