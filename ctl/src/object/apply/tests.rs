use serde_json::json;

use super::{LAST_APPLIED, annotated, documents, merge_patch};

#[test]
fn what_was_applied_and_is_no_longer_wanted_is_removed() {
    let last = json!({ "spec": { "action": "Allow", "rules": [1] }, "metadata": { "labels": { "a": "1", "b": "2" } } });
    let wanted = json!({ "spec": { "action": "Deny" }, "metadata": { "labels": { "a": "1" } } });
    let patch = merge_patch(Some(&last), &wanted);
    assert_eq!(patch["spec"], json!({ "action": "Deny", "rules": null }));
    assert_eq!(patch["metadata"]["labels"], json!({ "a": "1", "b": null }));
}

#[test]
fn what_others_set_stays() {
    let wanted = json!({ "spec": { "action": "Deny" } });
    assert_eq!(merge_patch(None, &wanted), wanted);
}

#[test]
fn the_annotation_does_not_hold_itself() {
    let first = annotated(&json!({ "metadata": { "name": "a" } })).unwrap();
    let again = annotated(&first).unwrap();
    let held = again["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert!(!held.contains(LAST_APPLIED), "{held}");
}

#[test]
fn several_documents_and_lists_are_taken_apart() {
    let text = "kind: A\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
    let kinds: Vec<_> = documents(text)
        .unwrap()
        .iter()
        .map(|object| object["kind"].clone())
        .collect();
    assert_eq!(kinds, ["A", "B", "C"]);
}
