use kube::CustomResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    AuthorizationPolicy, PeerAuthentication, address_range, principal_pattern, text_pattern, validate,
};

fn faults(kind: &str, spec: Value) -> Vec<String> {
    let object = json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec});
    match validate("trefoil.dev", kind, &object) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.field).collect(),
    }
}

#[test]
fn good_policies_pass() {
    for spec in [
        json!({}),
        json!({"action": "Deny", "rules": [{}]}),
        json!({"selector": {"matchLabels": {"app": "web"}}, "rules": [{
            "from": [{"principals": ["cluster.local/ns/shop/sa/web", "*/sa/api"], "notNamespaces": ["*"]}],
            "to": [{"ports": [80, "8080"], "methods": ["GET"], "paths": ["/a*"]}],
            "when": [{"key": "request.headers[x-a]", "values": ["b"]}, {"key": "source.ip", "notValues": ["10.0.0.0/8", "fd00::1"]}],
        }]}),
        json!({"targetRefs": [{"kind": "Service", "name": "web"}], "action": "Audit"}),
    ] {
        assert_eq!(
            faults("AuthorizationPolicy", spec.clone()),
            Vec::<String>::new(),
            "{spec}"
        );
    }
    assert_eq!(
        faults(
            "PeerAuthentication",
            json!({"mtls": "Strict", "ports": {"80": "Disable"}})
        ),
        Vec::<String>::new()
    );
}

#[test]
fn every_fault_is_named_with_its_field() {
    let table = [
        (
            json!({"rules": [{"from": [{"adresses": ["10.0.0.1"]}]}]}),
            "spec.rules[0].from[0].adresses",
        ),
        (json!({"action": "ALLOW"}), "spec.action"),
        (
            json!({"rules": [{"from": [{"addresses": ["10.0.0.300"]}]}]}),
            "spec.rules[0].from[0].addresses[0]",
        ),
        (
            json!({"rules": [{"from": [{"addresses": ["10.0.0.1/8"]}]}]}),
            "spec.rules[0].from[0].addresses[0]",
        ),
        (
            json!({"rules": [{"to": [{"ports": [80, 0]}]}]}),
            "spec.rules[0].to[0].ports[1]",
        ),
        (
            json!({"rules": [{"to": [{"ports": [65536]}]}]}),
            "spec.rules[0].to[0].ports[0]",
        ),
        (json!({"rules": [{"from": [{}]}]}), "spec.rules[0].from[0]"),
        (json!({"rules": [{"to": [{}]}]}), "spec.rules[0].to[0]"),
        (
            json!({"rules": [{"from": [{"principals": ["a*b"]}]}]}),
            "spec.rules[0].from[0].principals[0]",
        ),
        (
            json!({"rules": [{"from": [{"principals": ["spiffe://a"]}]}]}),
            "spec.rules[0].from[0].principals[0]",
        ),
        (
            json!({"rules": [{"from": [{"principals": [""]}]}]}),
            "spec.rules[0].from[0].principals[0]",
        ),
        (
            json!({"rules": [{"from": [{"notPrincipals": ["cluster.local/shop/web"]}]}]}),
            "spec.rules[0].from[0].notPrincipals[0]",
        ),
        (
            json!({"rules": [{"when": [{"key": "source.principal", "values": ["shop/web"]}]}]}),
            "spec.rules[0].when[0].values[0]",
        ),
        (
            json!({"rules": [{"when": [{"key": "source.mood", "values": ["a"]}]}]}),
            "spec.rules[0].when[0].key",
        ),
        (
            json!({"rules": [{"when": [{"key": "source.ip"}]}]}),
            "spec.rules[0].when[0]",
        ),
        (
            json!({"targetRefs": [{"kind": "Gateway", "name": "w"}]}),
            "spec.targetRefs[0]",
        ),
        (
            json!({"selector": {"matchLabels": {}}}),
            "spec.selector.matchLabels",
        ),
        (
            json!({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Service", "name": "w"}]}),
            "spec",
        ),
    ];
    for (spec, field) in table {
        assert_eq!(faults("AuthorizationPolicy", spec.clone()), vec![field], "{spec}");
    }
    assert_eq!(
        faults("PeerAuthentication", json!({"ports": {"http": "Strict"}})),
        vec!["spec.ports[http]"]
    );
    assert_eq!(
        faults("PeerAuthentication", json!({"mtls": "STRICT"})),
        vec!["spec.mtls"]
    );
    assert_eq!(faults("TrafficPolicy", json!({})), vec!["kind"]);
}

#[test]
fn a_path_that_is_not_as_paths_are_compared_is_named() {
    for (rule, field) in [
        (json!({"to": [{"paths": ["/a", "//a"]}]}), "to[0].paths[1]"),
        (json!({"to": [{"notPaths": ["/%61*"]}]}), "to[0].notPaths[0]"),
        (
            json!({"when": [{"key": "request.path", "values": ["*/../a"]}]}),
            "when[0].values[0]",
        ),
    ] {
        let spec = json!({"rules": [rule]});
        assert_eq!(
            faults("AuthorizationPolicy", spec),
            [format!("spec.rules[0].{field}")]
        );
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let spec = json!({"rules": [{"from": [{"addresses": ["x", "y"]}], "to": [{"ports": [0]}]}]});
    assert_eq!(faults("AuthorizationPolicy", spec).len(), 3);
}

#[test]
fn the_mesh_configuration_and_mode_labels_are_looked_into() {
    let map = |text: &str| json!({"metadata": {"name": "trefoil-mesh", "namespace": "trefoil-system"}, "data": {"mesh.yaml": text}});
    assert!(validate("", "ConfigMap", &map("defaultMtls: Strict")).is_ok());
    assert!(validate("", "ConfigMap", &map("defaultmtls: Strict")).is_err());
    let other = json!({"metadata": {"name": "other", "namespace": "trefoil-system"}});
    assert!(validate("", "ConfigMap", &other).is_ok());
    let namespace = |mode: &str| json!({"metadata": {"labels": {"trefoil.dev/dataplane-mode": mode}}});
    assert!(validate("", "Namespace", &namespace("ambient")).is_ok());
    assert!(validate("", "Namespace", &namespace("ambeint")).is_err());
}

/// Unknown fields have to reach the validation, instead of being pruned in silence.
#[test]
fn schemas_keep_unknown_fields() {
    for crd in [AuthorizationPolicy::crd(), PeerAuthentication::crd()] {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).expect("schema");
        let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["x-kubernetes-preserve-unknown-fields"], true, "{spec:#}");
        assert_eq!(crd.spec.versions[0].name, "v1alpha1");
        assert!(
            crd.spec.versions[0]
                .subresources
                .as_ref()
                .is_some_and(|one| one.status.is_some())
        );
    }
}

proptest! {
    #[test]
    fn terms_never_panic(text in "\\PC{0,40}") {
        let _ = text_pattern(&text);
        let _ = address_range(&text);
    }

    #[test]
    fn validation_never_panics(text in "\\PC{0,20}", number in any::<i64>()) {
        for spec in [json!(text), json!(number), json!([text]), json!({"rules": [{"to": [{"ports": [number]}]}]}), json!({"rules": text})] {
            let _ = faults("AuthorizationPolicy", spec.clone());
            let _ = faults("PeerAuthentication", spec);
        }
    }
}

#[test]
fn a_pattern_that_matches_no_principal_there_can_be_is_refused() {
    for possible in [
        "cluster.local/ns/shop/sa/web",
        "*",
        "cluster.local/*",
        "cluster*",
        "cluster.local/n*",
        "cluster.local/ns/shop/*",
        "cluster.local/ns/shop/sa/w*",
        "*/sa/api",
        "*a/api",
        "*web",
        "*/web",
        "*/ns/shop/sa/web",
    ] {
        assert!(principal_pattern(possible).is_ok(), "{possible}");
    }
    for impossible in [
        "web",
        "shop/web",
        "cluster.local/ns/shop/web",
        "cluster.local/ns/shop/sa/web/",
        "cluster.local/ns/shop/sa/Web",
        "cluster.local/ns//sa/web",
        "cluster.local/shop/*",
        "cluster.local/ns/shop/sb*",
        "cluster.local/ns/shop/sa/web/*",
        "*/ns/web",
        "*/cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/*",
    ] {
        let refused = principal_pattern(impossible);
        assert!(refused.is_err(), "{impossible}: {refused:?}");
    }
}
