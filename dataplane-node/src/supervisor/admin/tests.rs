use serde_json::json;

use super::together;

#[test]
fn workers_answers_are_joined_and_marked() {
    let joined = together(vec![
        ("shared".into(), Ok(json!({ "connections": [{ "id": 1 }] }))),
        (
            "namespace/shop".into(),
            Ok(json!({ "connections": [{ "id": 1 }] })),
        ),
        ("namespace/bank".into(), Err("the worker is not running".into())),
    ]);
    assert_eq!(
        joined,
        json!({
            "connections": [{ "id": 1, "worker": "shared" }, { "id": 1, "worker": "namespace/shop" }],
            "unanswered": [{ "worker": "namespace/bank", "error": "the worker is not running" }],
        })
    );
}
