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
    let accepted = [("Accepted", "False"), ("Reason", "Malformed")];
    let enforced = [
        ("Accepted", "False"),
        ("Enforced", "True"),
        ("Reason", "Malformed"),
    ];
    for (kind, own, value, conditions) in [
        (&kinds::AUTHORIZATION_POLICY, "Action", "Deny", &enforced[..]),
        (&kinds::PEER_AUTHENTICATION, "mTLS", "Strict", &accepted[..]),
    ] {
        let table = render::object(kind, &object, Form::Table);
        let definitions = table["columnDefinitions"].as_array().unwrap();
        let names = definitions.iter().map(|one| one["name"].as_str().unwrap());
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        let cells = cells.iter().map(|cell| cell.as_str().unwrap());
        let shown: Vec<(&str, &str)> = names.zip(cells).collect();
        assert_eq!(shown[..2], [("Name", "p"), (own, value)]);
        assert_eq!(&shown[2..shown.len() - 1], conditions);
    }
}
