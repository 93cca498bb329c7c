use serde_json::{Value, json};

use crate::kinds;
use crate::lifecycle::*;
use crate::status::{ApiError, FieldError};

fn birth() -> Birth {
    Birth {
        now: "2026-01-01T00:00:00Z".into(),
        uid: "u".into(),
        suffix: "abcde".into(),
    }
}

fn any(_: &str, _: &str, _: &Value) -> Result<(), Vec<FieldError>> {
    Ok(())
}

fn policy(object: Value) -> Result<Value, ApiError> {
    create(&kinds::AUTHORIZATION_POLICY, Some("shop"), object, &birth(), &any)
}

#[test]
fn a_created_object_is_completed() {
    let made =
        policy(json!({ "metadata": { "generateName": "p-" }, "spec": {}, "status": { "x": 1 } })).unwrap();
    assert_eq!(
        made,
        json!({
            "apiVersion": "trefoil.dev/v1alpha1", "kind": "AuthorizationPolicy", "spec": {},
            "metadata": {
                "name": "p-abcde", "generateName": "p-", "namespace": "shop", "uid": "u", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
        })
    );
}

#[test]
fn malformed_metadata_is_invalid_with_its_fields() {
    let bad = json!({ "metadata": { "name": "Upper", "labels": { "a b": "c", "ok": "-x" }, "annotations": { "n": 1 } } });
    let Err(ApiError::Invalid { causes, .. }) = policy(bad) else {
        panic!("accepted")
    };
    let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "metadata.labels[a b]",
            "metadata.labels[ok]",
            "metadata.annotations[n]"
        ]
    );
}

#[test]
fn what_belongs_elsewhere_is_refused() {
    for (object, code) in [
        (json!({ "metadata": { "name": "a", "namespace": "other" } }), 400),
        (json!({ "kind": "Pod", "metadata": { "name": "a" } }), 400),
        (
            json!({ "metadata": { "name": "a", "resourceVersion": "7" } }),
            400,
        ),
        (json!({ "metadata": {} }), 422),
        (json!([]), 400),
    ] {
        assert_eq!(policy(object.clone()).unwrap_err().code(), code, "{object}");
    }
}

#[test]
fn the_generation_counts_changes_of_the_spec_only() {
    let kind = &kinds::AUTHORIZATION_POLICY;
    let made = policy(json!({ "metadata": { "name": "a" }, "spec": { "action": "Allow" } })).unwrap();
    let mut labelled = made.clone();
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    let labelled = update(kind, &made, labelled, Part::Main, &any).unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let mut changed = labelled.clone();
    changed["spec"]["action"] = "Deny".into();
    let changed = update(kind, &labelled, changed, Part::Main, &any).unwrap();
    assert_eq!(changed["metadata"]["generation"], 2);
    let mut reported = changed.clone();
    reported["status"] = json!({ "ok": true });
    reported["spec"]["action"] = "Allow".into();
    let reported = update(kind, &changed, reported, Part::Status, &any).unwrap();
    assert_eq!(
        reported["spec"]["action"], "Deny",
        "a status write says nothing of the spec"
    );
    assert_eq!(reported["status"]["ok"], true);
}

#[test]
fn identity_is_kept_and_old_versions_are_refused() {
    let kind = &kinds::AUTHORIZATION_POLICY;
    let mut made = policy(json!({ "metadata": { "name": "a" }, "spec": {} })).unwrap();
    made["metadata"]["resourceVersion"] = "5".into();
    for (field, value) in [("resourceVersion", "4"), ("uid", "other")] {
        let mut stale = made.clone();
        stale["metadata"][field] = value.into();
        assert_eq!(
            update(kind, &made, stale, Part::Main, &any).unwrap_err().code(),
            409,
            "{field}"
        );
    }
    let bare = json!({ "metadata": { "name": "a" }, "spec": {} });
    assert_eq!(
        update(kind, &made, bare, Part::Main, &any).unwrap(),
        made,
        "nothing would change"
    );
}
