//! Routes reach the planes of their services, and their status says what becomes of them.

use serde_json::{Value, json};
use trefoil_api::proto::trefoil::v1::{HttpRoute, http_path_match};

use super::waypoints::{service, waypoint};
use super::*;
use crate::RouteKind;
use crate::facts::{ReferenceGrant, RouteObject};

fn object(spec: Value) -> RouteObject {
    RouteObject {
        object: json!({"spec": spec}),
        generation: 7,
        created: 1_700_000_000,
        status: Value::Null,
    }
}

fn http(name: &str, spec: Value) -> Change {
    Change::Route(RouteKind::Http, key(name), Some(object(spec)))
}

fn to_web(rules: Value) -> Value {
    json!({"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}], "rules": rules})
}

fn served(index: &Index, name: &str) -> Option<HttpRoute> {
    let snapshot = index.snapshot();
    let encoded = snapshot.of(ResourceKind::HttpRoute).get(name)?;
    Some(encoded.decode().expect("decodes"))
}

/// Type, status, reason and message of the first parent's conditions.
fn said(index: &Index, kind: &str) -> (bool, String, String) {
    let mut statuses = index.statuses().filter(|one| !one.wanted["parents"].is_null());
    let wanted = statuses.next().expect("said").wanted.clone();
    let conditions = wanted["parents"][0]["conditions"]
        .as_array()
        .expect("conditions")
        .clone();
    let one = conditions.iter().find(|one| one["type"] == kind).expect("said");
    assert_eq!(one["observedGeneration"], 7);
    let text = |field: &str| one[field].as_str().expect("text").to_owned();
    (one["status"] == "True", text("reason"), text("message"))
}

fn world(route: Change) -> Index {
    let mut changes = with_a_waypoint();
    changes.extend([service("v2", &[]), route]);
    index(changes)
}

/// Service web with a route and a waypoint that is ready, which random changes seldom come to by themselves.
pub(super) fn with_a_waypoint() -> Vec<Change> {
    let mut changes = vec![
        service("web", &[("trefoil.dev/use-waypoint", "w")]),
        http("r", to_web(json!([{}]))),
    ];
    changes.extend(waypoint("w", "service", "10.0.0.9", true));
    changes
}

#[test]
fn a_route_names_its_service_and_its_backends() {
    let rules = json!([{
        "matches": [{"path": {"type": "PathPrefix", "value": "/api"}, "headers": [{"name": "X-Tier", "value": "gold"}]}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-A", "value": "1"}]}}],
        "backendRefs": [{"name": "web", "port": 80, "weight": 9}, {"name": "v2", "port": 80}],
        "timeouts": {"request": "1m500ms"},
    }]);
    let index = world(http("r", to_web(rules)));
    let route = served(&index, "HTTPRoute/shop/r").expect("served");
    assert_eq!(route.parents[0].service, "shop/web.shop.svc.cluster.local");
    assert_eq!((route.parents[0].port, route.created), (80, 1_700_000_000));
    let rule = &route.rules[0];
    assert_eq!(rule.matches[0].headers[0].name, "x-tier");
    assert_eq!(rule.request_timeout_milliseconds, 60_500);
    let backends: Vec<_> = rule
        .backends
        .iter()
        .map(|one| (one.service.as_str(), one.weight))
        .collect();
    assert_eq!(
        backends,
        [
            ("shop/web.shop.svc.cluster.local", 9),
            ("shop/v2.shop.svc.cluster.local", 1)
        ]
    );
    for kind in ["Accepted", "ResolvedRefs", "trefoil.dev/Applied"] {
        assert!(said(&index, kind).0, "{kind}");
    }
}

#[test]
fn a_grpc_method_is_a_path() {
    let rules = json!([
        {"matches": [{"method": {"service": "a.B", "method": "Get"}}]},
        {"matches": [{"method": {"service": "a.B"}}]},
        {"matches": [{"method": {"method": "Get"}}]},
        {"matches": [{"method": {"type": "RegularExpression", "service": "a.*"}}]},
    ]);
    let index = world(Change::Route(
        RouteKind::Grpc,
        key("r"),
        Some(object(to_web(rules))),
    ));
    let route = served(&index, "GRPCRoute/shop/r").expect("served");
    let paths: Vec<_> = route
        .rules
        .iter()
        .map(|rule| rule.matches[0].path.clone().expect("path").kind)
        .collect();
    use http_path_match::Kind::{Exact, Prefix, RegularExpression};
    assert_eq!(
        paths,
        [
            Some(Exact("/a.B/Get".into())),
            Some(Prefix("/a.B".into())),
            Some(RegularExpression("/[^/]+/Get".into())),
            Some(RegularExpression("/(?:a.*)/[^/]+".into())),
        ]
    );
}

#[test]
fn a_backend_of_another_namespace_needs_a_grant() {
    let rules = json!([{"backendRefs": [{"name": "db", "namespace": "other", "port": 80}]}]);
    let mut index = world(http("r", to_web(rules)));
    assert_eq!(said(&index, "ResolvedRefs").1, "RefNotPermitted");
    let backend =
        |index: &Index| served(index, "HTTPRoute/shop/r").expect("served").rules[0].backends[0].clone();
    assert_eq!(
        (backend(&index).service.as_str(), backend(&index).weight),
        ("", 1)
    );
    let grant = ReferenceGrant {
        from: vec![(
            "gateway.networking.k8s.io".into(),
            "HTTPRoute".into(),
            "shop".into(),
        )],
        to: vec![(String::new(), "Service".into(), Some("db".into()))],
    };
    index.apply(Change::ReferenceGrant(ObjectKey::new("other", "g"), Some(grant)));
    index.flush();
    assert_eq!(said(&index, "ResolvedRefs").1, "BackendNotFound");
    let Change::Service(_, facts) = service("db", &[]) else {
        panic!("a service")
    };
    index.apply(Change::Service(ObjectKey::new("other", "db"), facts));
    index.flush();
    assert!(said(&index, "ResolvedRefs").0);
    assert_eq!(backend(&index).service, "other/db.other.svc.cluster.local");
}

#[test]
fn a_malformed_route_leaves_the_last_good_one_in_force() {
    let good = to_web(json!([{"backendRefs": [{"name": "v2", "port": 80}]}]));
    let bad = to_web(json!([{"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}]));
    let mut index = world(http("r", good));
    let before = served(&index, "HTTPRoute/shop/r").expect("served");
    index.apply(http("r", bad.clone()));
    index.flush();
    assert_eq!(served(&index, "HTTPRoute/shop/r"), Some(before));
    let (holds, reason, message) = said(&index, "Accepted");
    assert_eq!((holds, reason.as_str()), (false, "UnsupportedValue"));
    assert!(
        message.contains("spec.rules[0].matches[0].path.value"),
        "{message}"
    );
    index.apply(Change::Route(RouteKind::Http, key("r"), None));
    index.apply(http("r", bad));
    index.flush();
    assert_eq!(served(&index, "HTTPRoute/shop/r"), None);
    assert!(said(&index, "Accepted").2.contains("it routes nothing"));
}

/// A pod that is served by a plane.
fn served_by(plane: Plane, namespace: &str, address: &str) -> Change {
    let mut one = pod(address);
    one.redirection = Some(plane);
    Change::Pod(ObjectKey::new(namespace, "one"), Some(one))
}

#[test]
fn a_route_that_nobody_applies_says_for_whom() {
    let mut index = world(http("r", to_web(json!([{}]))));
    index.apply(Change::Gateway(key("w"), None));
    index.apply(served_by(Plane::Sidecar, "shop", "10.0.0.7"));
    index.flush();
    // Without a waypoint it is for the clients' own planes.
    let (applied, _, message) = said(&index, "trefoil.dev/Applied");
    assert!(
        applied && message.contains("by the sidecars of its clients"),
        "{message}"
    );
    // Of which not all read HTTP.
    index.apply(served_by(Plane::Node, "books", "10.0.0.8"));
    index.flush();
    let (applied, reason, message) = said(&index, "trefoil.dev/Applied");
    assert_eq!((applied, reason.as_str()), (false, "NoPlane"));
    assert!(message.contains("ambient clients in books"), "{message}");
    assert!(message.contains("give Service shop/web a waypoint"), "{message}");
    index.apply(Change::Pod(ObjectKey::new("books", "one"), None));
    index.flush();
    assert!(said(&index, "trefoil.dev/Applied").0);
    index.apply(served_by(Plane::Node, "books", "10.0.0.8"));
    // A route of a client's namespace is for that namespace's own planes.
    let foreign = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": "shop"}], "rules": [{}]});
    index.apply(Change::Route(RouteKind::Http, key("r"), None));
    index.apply(Change::Route(
        RouteKind::Http,
        ObjectKey::new("other", "r"),
        Some(object(foreign)),
    ));
    index.flush();
    assert!(served(&index, "HTTPRoute/other/r").is_some());
    let (applied, _, message) = said(&index, "trefoil.dev/Applied");
    assert!(applied && message.contains("clients in other"), "{message}");
    index.apply(served_by(Plane::Node, "other", "10.0.0.9"));
    index.flush();
    let (applied, _, message) = said(&index, "trefoil.dev/Applied");
    assert!(
        !applied && message.contains("ambient clients in other"),
        "{message}"
    );
    // Nor is one attached to a service that there is not.
    index.apply(http(
        "r",
        json!({"parentRefs": [{"group": "", "kind": "Service", "name": "gone"}]}),
    ));
    index.apply(Change::Route(RouteKind::Http, ObjectKey::new("other", "r"), None));
    index.flush();
    assert_eq!(said(&index, "Accepted").1, "NoMatchingParent");
}
