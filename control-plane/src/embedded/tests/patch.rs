use serde_json::{Value, json};

use crate::embedded::kinds;
use crate::embedded::patch::Patch;

fn strategic(target: &Value, patch: &Value) -> Value {
    let body = patch.to_string();
    let patch = Patch::parse(
        &kinds::POD,
        "application/strategic-merge-patch+json",
        body.as_bytes(),
    )
    .unwrap();
    patch.apply(target).unwrap()
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
    let directive = br#"{"spec":{"$patch":"replace"}}"#;
    let patch = Patch::parse(&kinds::POD, "application/strategic-merge-patch+json", directive).unwrap();
    assert_eq!(patch.apply(&json!({})).unwrap_err().code(), 415);
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
        patch.apply(&json!({ "b": 2 })).unwrap(),
        json!({ "a": 1, "b": 2 })
    );
    assert!(patch.apply(&json!({ "b": 3 })).is_err());
    let patch = Patch::parse(
        &kinds::POD,
        "application/merge-patch+json; charset=utf-8",
        br#"{"b":null}"#,
    )
    .unwrap();
    assert_eq!(
        patch.apply(&json!({ "a": 1, "b": 2 })).unwrap(),
        json!({ "a": 1 })
    );
}
