use crate::kinds;
use crate::route::{Query, Route, parse};

#[test]
fn paths_of_objects_are_understood() {
    let table = [
        ("/api/v1/pods", "Pod", None, None, None),
        ("/api/v1/namespaces", "Namespace", None, None, None),
        ("/api/v1/namespaces/shop", "Namespace", None, Some("shop"), None),
        (
            "/api/v1/namespaces/shop/status",
            "Namespace",
            None,
            Some("shop"),
            Some("status"),
        ),
        (
            "/api/v1/namespaces/shop/pods/p/status",
            "Pod",
            Some("shop"),
            Some("p"),
            Some("status"),
        ),
        (
            "/apis/trefoil.dev/v1alpha1/namespaces/a/authorizationpolicies/b",
            "AuthorizationPolicy",
            Some("a"),
            Some("b"),
            None,
        ),
        (
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses/c",
            "GatewayClass",
            None,
            Some("c"),
            None,
        ),
    ];
    for (path, kind, namespace, name, subresource) in table {
        let Ok(Route::Resource(resource)) = parse(path) else {
            panic!("{path}")
        };
        assert_eq!(resource.kind.kind, kind, "{path}");
        assert_eq!(resource.namespace.as_deref(), namespace, "{path}");
        assert_eq!(resource.name.as_deref(), name, "{path}");
        assert_eq!(resource.subresource.as_deref(), subresource, "{path}");
    }
}

#[test]
fn everything_else_is_not_found() {
    for path in [
        "/api/v1/deployments",
        "/apis/apps/v1/deployments",
        "/api/v1/pods/p",
        "/api/v1/namespaces/a/nodes/n",
        "/api/v1/namespaces/a/pods/p/status/more",
        "/api/v1/namespaces/a/pods//status",
        "/api/v2/pods",
        "/metrics",
        "/\u{1}internal",
    ] {
        assert!(parse(path).is_err(), "{path}");
    }
}

#[test]
fn no_kind_is_listed_twice() {
    for (index, kind) in kinds::ALL.iter().enumerate() {
        let same = |other: &&kinds::Kind| other.plural == kind.plural && other.group == kind.group;
        assert!(!kinds::ALL[..index].iter().copied().any(|other| same(&other)));
        let plain = kind.group.is_empty() || kind.group == "events.k8s.io";
        let expected = if plain {
            kind.plural.to_owned()
        } else {
            format!("{}.{}", kind.plural, kind.group)
        };
        assert_eq!(kind.resource, expected);
    }
}

#[test]
fn queries_are_decoded() {
    let query = Query::parse(Some("labelSelector=a%20in+%28b%29&watch=1&empty=&broken=%2"));
    assert_eq!(query.get("labelSelector"), Some("a in (b)"));
    assert!(query.flag("watch"));
    assert_eq!(query.get("empty"), None);
    assert_eq!(query.get("broken"), Some("%2"));
}
