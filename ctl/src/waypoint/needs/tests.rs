//! What the cluster says of a pod that does not become ready.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::complaints_of;

fn said(status: Value) -> Vec<String> {
    let pod: Pod =
        serde_json::from_value(json!({ "metadata": { "name": "w-1" }, "status": status })).expect("a pod");
    complaints_of(&pod)
}

#[test]
fn a_pod_says_why_it_does_not_run_and_nothing_where_it_does() {
    let container = |state: Value| json!({ "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }] });
    let waiting = json!({ "waiting": { "reason": "ErrImageNeverPull", "message": "not present" } });
    let scheduled = |holds: &str| json!({ "conditions": [{ "type": "PodScheduled", "status": holds, "message": "0/2 nodes" }] });
    for (status, expected) in [
        (
            container(waiting),
            vec!["pod w-1: ErrImageNeverPull: not present"],
        ),
        (
            container(json!({ "waiting": { "reason": "CrashLoopBackOff" } })),
            vec!["pod w-1: CrashLoopBackOff"],
        ),
        (scheduled("False"), vec!["pod w-1: 0/2 nodes"]),
        (scheduled("True"), vec![]),
        (container(json!({ "running": {} })), vec![]),
        (Value::Null, vec![]),
    ] {
        assert_eq!(said(status.clone()), expected, "{status}");
    }
}
