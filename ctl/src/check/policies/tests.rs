use serde_json::json;

use super::*;

#[test]
fn principals_of_service_accounts_that_are_not_there_are_found() {
    let accounts = BTreeSet::from([("shop".to_owned(), "web".to_owned())]);
    let policy = json!({ "spec": { "rules": [
        {
            "from": [
                { "principals": ["cluster.local/ns/shop/sa/web", "cluster.local/ns/shop/sa/wbe", "*/sa/any"] },
                { "notPrincipals": ["cluster.local/ns/shpo/sa/web"] },
            ],
            "when": [
                { "key": "source.principal", "values": ["cluster.local/ns/shop/sa/api"] },
                { "key": "source.namespace", "values": ["cluster.local/ns/shop/sa/none"] },
            ],
        },
    ] } });
    assert_eq!(
        nobodies(&policy, &accounts),
        [
            "cluster.local/ns/shop/sa/api",
            "cluster.local/ns/shop/sa/wbe",
            "cluster.local/ns/shpo/sa/web",
        ]
    );
    assert_eq!(nobodies(&json!({}), &accounts), [""; 0]);
}
