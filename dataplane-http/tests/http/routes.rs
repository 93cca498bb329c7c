//! Where requests go, and what is done to them on the way.

use std::collections::HashMap;

use http::Request;
use tokio::sync::mpsc;
use trefoil_api::proto::istio::security;
use trefoil_api::proto::istio::workload::AppProtocol;
use trefoil_api::proto::trefoil::v1::{self as message, http_route_filter::Kind};

use crate::plane::{Plane, application, body, key, nobody, telling, text};
use crate::policy::{of_path, policy};

pub(crate) fn route(rules: Vec<message::HttpRouteRule>) -> message::HttpRoute {
    message::HttpRoute {
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: "r".into(),
        parents: vec![message::RouteParent {
            service: key("cart"),
            port: 80,
        }],
        rules,
        ..message::HttpRoute::default()
    }
}

pub(crate) fn to(backends: &[(&str, u32)]) -> message::HttpRouteRule {
    let backend = |(service, weight): &(&str, u32)| message::HttpRouteBackend {
        service: if service.is_empty() {
            String::new()
        } else {
            key(service)
        },
        port: 80,
        weight: *weight,
        filters: Vec::new(),
    };
    message::HttpRouteRule {
        backends: backends.iter().map(backend).collect(),
        ..message::HttpRouteRule::default()
    }
}

fn under(path: &str, mut rule: message::HttpRouteRule) -> message::HttpRouteRule {
    rule.matches = vec![message::HttpRouteMatch {
        path: Some(message::HttpPathMatch {
            kind: Some(message::http_path_match::Kind::Prefix(path.into())),
        }),
        ..message::HttpRouteMatch::default()
    }];
    rule
}

fn filter(kind: Kind) -> message::HttpRouteFilter {
    message::HttpRouteFilter { kind: Some(kind) }
}

fn set(name: &str, value: &str) -> message::HttpHeaderChange {
    message::HttpHeaderChange {
        set: vec![message::HttpHeader {
            name: name.into(),
            value: value.into(),
        }],
        ..message::HttpHeaderChange::default()
    }
}

async fn two() -> Plane {
    let plane = Plane::new(telling("v1", false).await, AppProtocol::Http11).await;
    plane.service("next", 2, AppProtocol::Http11);
    plane.endpoint("next", 2, telling("v2", false).await, AppProtocol::Http11);
    plane
}

#[tokio::test]
async fn shares_are_about_as_weighted_and_missing_ones_fail_as_theirs() {
    let plane = two().await;
    plane.route(&route(vec![to(&[
        ("cart", 60),
        ("next", 30),
        ("", 10),
        ("gone", 0),
    ])]));
    let mut client = plane.client(&nobody()).await;
    let mut counts = HashMap::new();
    for _ in 0..600 {
        let (status, told) = client.get("/").await;
        let by = if status == 200 {
            told.split(' ').next().unwrap_or("").to_owned()
        } else {
            status.to_string()
        };
        *counts.entry(by).or_insert(0) += 1;
    }
    // Five standard deviations around 360, 180 and 60.
    assert!((300..=420).contains(&counts["v1"]), "{counts:?}");
    assert!((123..=237).contains(&counts["v2"]), "{counts:?}");
    assert!((23..=97).contains(&counts["500"]), "{counts:?}");
    assert_eq!(counts.len(), 3, "{counts:?}");
}

#[tokio::test]
async fn a_share_moves_at_once_and_what_no_rule_is_for_is_not_found() {
    let plane = two().await;
    let mut client = plane.client(&nobody()).await;
    assert!(client.get("/api").await.1.starts_with("v1"));
    plane.route(&route(vec![under("/api", to(&[("cart", 0), ("next", 1)]))]));
    assert!(client.get("/api/x").await.1.starts_with("v2"));
    let (status, reason) = client.get("/apis").await;
    assert_eq!(
        (status, reason.starts_with("waypoint: no route")),
        (404, true),
        "{reason}"
    );
    plane.routes.remove("HTTPRoute/shop/r");
    assert_eq!(client.get("/apis").await.0, 200);
    for none in [to(&[]), to(&[("cart", 0)]), to(&[("gone", 1)])] {
        plane.route(&route(vec![none]));
        assert_eq!(client.get("/").await.0, 500);
    }
}

#[tokio::test]
async fn headers_and_paths_are_changed_where_the_rule_says() {
    let plane = two().await;
    let mut rule = under("/old", to(&[("cart", 1)]));
    rule.filters = vec![
        filter(Kind::RequestHeaders(set("x-rule", "r"))),
        filter(Kind::ResponseHeaders(set("x-answer", "a"))),
        filter(Kind::Rewrite(message::HttpRewrite {
            host: "inner.shop".into(),
            path: Some(message::HttpPathChange {
                kind: Some(message::http_path_change::Kind::Prefix("/new".into())),
            }),
        })),
    ];
    rule.backends[0].filters = vec![
        filter(Kind::RequestHeaders(set("x-backend", "b"))),
        filter(Kind::ResponseHeaders(set("x-of", "c"))),
    ];
    plane.route(&route(vec![rule]));
    let request = Request::get("/old/x?q=1")
        .header("host", "cart.shop")
        .body(body(""));
    let response = plane.client(&nobody()).await.send(request.unwrap()).await;
    assert_eq!(response.headers()["x-answer"], "a");
    assert_eq!(response.headers()["x-of"], "c");
    let (_, told) = text(response).await;
    assert!(told.starts_with("v1 GET /new/x inner.shop ?q=1"), "{told}");
    assert!(
        told.contains("x-rule: r") && told.contains("x-backend: b"),
        "{told}"
    );
}

#[tokio::test]
async fn a_redirect_is_answered_here() {
    let plane = two().await;
    let mut rule = to(&[]);
    rule.filters = vec![filter(Kind::Redirect(message::HttpRedirect {
        scheme: "https".into(),
        status: 308,
        ..message::HttpRedirect::default()
    }))];
    plane.route(&route(vec![rule]));
    let request = Request::get("/x?q").header("host", "cart.shop").body(body(""));
    let response = plane.client(&nobody()).await.send(request.unwrap()).await;
    assert_eq!(response.status(), 308);
    assert_eq!(response.headers()["location"], "https://cart.shop/x?q");
    assert!(plane.carrier.opened.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_mirror_gets_a_copy_and_its_answer_nobody() {
    use http_body_util::BodyExt;
    let plane = two().await;
    let (copies, mut copied) = mpsc::unbounded_channel();
    let mirror = application(false, move |request: Request<hyper::body::Incoming>| {
        let copies = copies.clone();
        async move {
            let path = request.uri().path().to_owned();
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            copies.send((path, bytes)).unwrap();
            let mut failed = http::Response::new(body("nobody reads this"));
            *failed.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            failed
        }
    });
    plane.service("copy", 3, AppProtocol::Http11);
    plane.endpoint("copy", 3, mirror.await, AppProtocol::Http11);
    let mut rule = to(&[("cart", 1)]);
    let backend = to(&[("copy", 1)]).backends.remove(0);
    rule.filters = vec![filter(Kind::Mirror(message::HttpMirror {
        backend: Some(backend),
        ..message::HttpMirror::default()
    }))];
    plane.route(&route(vec![rule]));
    // Read whole by the one who answers: an application that reads nothing gets nothing more, nor does its mirror.
    let reading = application(false, |request: Request<hyper::body::Incoming>| async move {
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(body(bytes))
    });
    plane.endpoint("cart", 1, reading.await, AppProtocol::Http11);
    let request = Request::post("/buy")
        .header("host", "cart.shop")
        .body(body("one apple"));
    let answered = text(plane.client(&nobody()).await.send(request.unwrap()).await).await;
    assert_eq!(answered, (200, "one apple".into()));
    let (path, bytes) = copied.recv().await.unwrap();
    assert_eq!((path.as_str(), &bytes[..]), ("/buy", &b"one apple"[..]));
}

#[tokio::test]
async fn what_was_handed_over_gets_policy_and_no_route() {
    let plane = two().await;
    plane.endpoint("cart", 4, telling("v4", false).await, AppProtocol::Http11);
    let mut rule = to(&[("next", 1)]);
    rule.filters = vec![filter(Kind::RequestHeaders(set("x-rule", "r")))];
    let mut of_each_port = route(vec![rule]);
    of_each_port.parents[0].port = 0;
    plane.route(&of_each_port);
    let no_admin = policy("no-admin", security::Action::Deny, &[of_path("/admin")]);
    plane.policies(&[no_admin]);
    let mut client = plane.handed_over(&nobody()).await;
    // Always the one that was dialled: neither routed nor balanced.
    for _ in 0..20 {
        let (status, told) = client.get("/x").await;
        assert_eq!(status, 200);
        assert!(
            told.starts_with("v1 GET /x") && !told.contains("x-rule"),
            "{told}"
        );
    }
    assert_eq!(client.get("/admin").await.0, 403);
    // Who dialled the service is routed.
    let (_, told) = plane.client(&nobody()).await.get("/x").await;
    assert!(told.starts_with("v2") && told.contains("x-rule"), "{told}");
}
