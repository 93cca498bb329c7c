use super::*;

/// What a plane's server makes of the query of a URI.
fn parsed(query: &str) -> Vec<(&str, &str)> {
    query.split('&').filter_map(|pair| pair.split_once('=')).collect()
}

#[test]
fn a_query_says_everything_and_needs_no_escaping() {
    let question = Arriving {
        workload: crate::names::workload_uid("shop", "cart"),
        identity: Some("spiffe://cluster.local/ns/shop/sa/web".into()),
        source: "fd00::1".parse().expect("an address"),
        destination: "[fd00::2]:80".parse().expect("an address"),
    };
    let query = question.query();
    let uid = question.workload.as_str();
    assert_eq!(
        parsed(&query),
        [
            ("workload", uid),
            ("source", "fd00::1"),
            ("destination", "[fd00::2]:80"),
            ("identity", "spiffe://cluster.local/ns/shop/sa/web"),
        ]
    );
    assert!(!query.contains(['%', '+', ' ', '#']), "{query}");
}

#[test]
fn a_client_that_has_proved_nothing_is_not_named() {
    let question = Arriving {
        workload: "Kubernetes//Pod/shop/cart".into(),
        identity: None,
        source: "10.0.0.1".parse().expect("an address"),
        destination: "10.0.0.2:80".parse().expect("an address"),
    };
    assert!(!question.query().contains("identity"));
}
