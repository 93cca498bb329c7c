//! What the Gateway API allows is read; anything else is refused by its field.

use serde_json::{Value, json};

use super::{duration, grpc_route, http_route};

fn faults(rule: Value) -> Vec<String> {
    let object =
        json!({"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [rule]}});
    match http_route(&object) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.field).collect(),
    }
}

#[test]
fn every_field_that_is_understood_is_read() {
    let rule = json!({
        "name": "all",
        "matches": [{
            "path": {"type": "PathPrefix", "value": "/api"},
            "headers": [{"type": "RegularExpression", "name": "X-A", "value": "a|b"}],
            "queryParams": [{"name": "q", "value": "1"}],
            "method": "GET",
        }],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "A", "value": "1"}], "remove": ["B"]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "A", "value": "1"}]}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": "a.example", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"}}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}, "fraction": {"numerator": 1, "denominator": 3}}},
        ],
        "backendRefs": [{"name": "web", "port": 80, "weight": 0, "namespace": "other"}],
        "timeouts": {"request": "10s", "backendRequest": "2s"},
        "retry": {"codes": [503], "attempts": 2, "backoff": "100ms"},
    });
    assert_eq!(faults(rule), Vec::<String>::new());
    let redirect = json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {
        "scheme": "https", "hostname": "a.example", "port": 8443, "statusCode": 301,
        "path": {"type": "ReplaceFullPath", "replaceFullPath": "/"},
    }}]});
    assert_eq!(faults(redirect), Vec::<String>::new());
}

#[test]
fn what_is_not_understood_is_refused_by_its_field() {
    let filter = |filter: Value| json!({"filters": [filter]});
    let path = |kind: &str, value: &str| json!({"matches": [{"path": {"type": kind, "value": value}}]});
    for (rule, field) in [
        (
            json!({"sessionPersistence": {}}),
            "spec.rules[0].sessionPersistence",
        ),
        (
            json!({"matches": [{"paht": {}}]}),
            "spec.rules[0].matches[0].paht",
        ),
        (
            path("RegularExpression", "("),
            "spec.rules[0].matches[0].path.value",
        ),
        (
            path("RegularExpression", "a)|(b"),
            "spec.rules[0].matches[0].path.value",
        ),
        (path("Exact", "api"), "spec.rules[0].matches[0].path.value"),
        (
            path("PathPrefix", "/a/../b"),
            "spec.rules[0].matches[0].path.value",
        ),
        (
            json!({"matches": [{"headers": [{"name": "a b", "value": ""}]}]}),
            "spec.rules[0].matches[0].headers[0].name",
        ),
        (
            json!({"matches": [{"method": "get"}]}),
            "spec.rules[0].matches[0].method",
        ),
        (
            filter(json!({"type": "ExtensionRef"})),
            "spec.rules[0].filters[0].type",
        ),
        (filter(json!({"type": "URLRewrite"})), "spec.rules[0].filters[0]"),
        (
            filter(json!({"type": "CORS", "cors": {}})),
            "spec.rules[0].filters[0].cors",
        ),
        (
            json!({"backendRefs": [{"name": "web"}]}),
            "spec.rules[0].backendRefs[0].port",
        ),
        (
            json!({"backendRefs": [{"name": "web", "port": 80, "weight": 1_000_001}]}),
            "spec.rules[0].backendRefs[0].weight",
        ),
        (
            json!({"timeouts": {"request": "1 minute"}}),
            "spec.rules[0].timeouts.request",
        ),
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "spec.rules[0].timeouts.backendRequest",
        ),
        (json!({"retry": {"codes": [200]}}), "spec.rules[0].retry.codes[0]"),
        (
            json!({"matches": [{"path": {"type": "Exact", "value": "/a"}}], "filters": [{"type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}}]}),
            "spec.rules[0].filters[0].urlRewrite.path",
        ),
        (
            json!({"backendRefs": [{"name": "web", "port": 80}],
                "filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}),
            "spec.rules[0].backendRefs",
        ),
    ] {
        assert_eq!(faults(rule.clone()), [field], "{rule}");
    }
}

#[test]
fn a_grpc_route_has_fewer_filters() {
    let object = |rule: Value| json!({"spec": {"rules": [rule]}});
    let good = json!({"matches": [{"method": {"service": "a.B", "method": "Get"}, "headers": []}],
        "backendRefs": [{"name": "web", "port": 80}]});
    assert!(grpc_route(&object(good)).is_ok());
    for bad in [
        json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}),
        json!({"matches": [{"method": {}}]}),
        json!({"matches": [{"method": {"service": "a/B"}}]}),
        json!({"matches": [{"path": {"value": "/"}}]}),
    ] {
        assert!(grpc_route(&object(bad.clone())).is_err(), "{bad}");
    }
}

#[test]
fn durations_are_those_of_the_gateway_api() {
    let milliseconds = |text: &str| duration(text).ok().map(|time| time.as_millis());
    for (text, expected) in [
        ("0s", Some(0)),
        ("1h30m", Some(5_400_000)),
        ("1m500ms", Some(60_500)),
        ("", None),
        ("10", None),
        ("1.5s", None),
        ("-1s", None),
        ("100000s", None),
        ("1s1s1s1s1s", None),
    ] {
        assert_eq!(milliseconds(text), expected, "{text:?}");
    }
}
