use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::unanswered;

fn agent(name: &str, answer: Option<&str>) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {"trefoil.dev/removal": answer}},
        "spec": {"nodeName": "n1", "containers": []},
    }))
    .unwrap()
}

#[test]
fn only_an_answer_to_this_request_counts() {
    let agents = [
        agent("done", Some("requested-2")),
        agent("earlier", Some("requested-1")),
    ];
    assert_eq!(unanswered(&agents, "requested-2"), ["earlier on n1"]);
    let silent: Pod = serde_json::from_value(json!({"metadata": {"name": "silent"}})).unwrap();
    assert_eq!(unanswered(&[silent], "requested-2"), ["silent on no node"]);
    assert!(unanswered(&agents[..1], "requested-2").is_empty());
}
