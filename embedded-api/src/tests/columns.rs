use serde_json::json;

use crate::kinds;
use crate::render::{self, Form};

/// As the columns of their CRDs have it in a cluster.
#[test]
fn policies_show_whether_and_why_they_are_accepted() {
    let object = json!({
        "metadata": {"name": "p"},
        "spec": {"action": "Deny", "mtls": "Strict"},
        "status": {"conditions": [
            {"type": "Enforced", "status": "True", "reason": "NeedsHttp"},
            {"type": "Accepted", "status": "False", "reason": "Malformed"},
        ]},
    });
    for (kind, own, value) in [
        (&kinds::AUTHORIZATION_POLICY, "Action", "Deny"),
        (&kinds::PEER_AUTHENTICATION, "mTLS", "Strict"),
    ] {
        let table = render::object(kind, &object, Form::Table);
        let definitions = table["columnDefinitions"].as_array().unwrap();
        let names: Vec<_> = definitions.iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["Name", own, "Accepted", "Reason", "Age"]);
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(
            cells[..4],
            ["p", value, "False", "Malformed"].map(|cell| json!(cell))
        );
    }
}
