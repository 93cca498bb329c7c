use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use trefoil_api::names::extension;
use trefoil_api::proto::istio::security::{self, Authorization, string_match::MatchType};
use trefoil_api::proto::istio::workload::AppProtocol;
use trefoil_api::proto::trefoil::v1::HttpRequestMatch;
use trefoil_api::proto::type_url;

use crate::peers::peer;
use crate::plane::{Plane, body, nobody, telling, text};

fn exact(text: &str) -> security::StringMatch {
    security::StringMatch {
        match_type: Some(MatchType::Exact(text.into())),
    }
}

/// For the whole namespace.
pub(crate) fn policy(name: &str, action: security::Action, asks: &[security::Match]) -> Authorization {
    let clause = |one: &security::Match| security::Clause {
        matches: vec![one.clone()],
    };
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: security::Scope::Namespace.into(),
        action: action.into(),
        rules: vec![security::Rule {
            clauses: asks.iter().map(clause).collect(),
        }],
        ..Authorization::default()
    }
}

pub(crate) fn of_path(path: &str) -> security::Match {
    of_request(&HttpRequestMatch {
        paths: vec![exact(path)],
        ..HttpRequestMatch::default()
    })
}

pub(crate) fn of_method(method: &str) -> security::Match {
    of_request(&HttpRequestMatch {
        methods: vec![exact(method)],
        ..HttpRequestMatch::default()
    })
}

fn of_request(asked: &HttpRequestMatch) -> security::Match {
    use prost::Message;
    security::Match {
        extensions: vec![security::Extension {
            name: extension::HTTP.into(),
            config: Some(prost_types::Any {
                type_url: type_url::HTTP_REQUEST_MATCH.into(),
                value: asked.encode_to_vec(),
            }),
        }],
        ..security::Match::default()
    }
}

fn of_account(account: &str) -> security::Match {
    security::Match {
        principals: vec![exact(&format!("cluster.local/ns/shop/sa/{account}"))],
        ..security::Match::default()
    }
}

#[tokio::test]
async fn a_path_is_denied_with_the_reason_however_it_is_spelled() {
    let plane = Plane::new(telling("v1", false).await, AppProtocol::Http11).await;
    plane.policies(&[policy("no-admin", security::Action::Deny, &[of_path("/admin")])]);
    let mut client = plane.client(&peer("web").await).await;
    assert_eq!(client.get("/").await.0, 200);
    for path in ["/admin", "/%61dmin", "//admin", "/x/../admin", "/./admin?x=1"] {
        let (status, text) = client.get(path).await;
        assert_eq!(status, 403, "{path}");
        assert!(
            text.starts_with("policy: ") && text.contains("shop/no-admin"),
            "{text}"
        );
    }
    assert_eq!(client.get("/admins").await.0, 200);
    let metrics = plane.metrics();
    let denied = metrics
        .lines()
        .find(|line| line.contains("istio_requests_total") && line.contains("DENY"));
    let denied = denied.expect("counted");
    for part in [
        "reporter=\"waypoint\"",
        "response_code=\"403\"",
        "request_protocol=\"http\"",
        "} 5",
    ] {
        assert!(denied.contains(part), "{denied}");
    }
    let messages = metrics.lines().find(|line| line.contains("_messages_total{"));
    assert_eq!(messages, None, "what is not gRPC has none");
    assert!(
        denied.contains("source_principal=\"spiffe://cluster.local/ns/shop/sa/web\""),
        "{denied}"
    );
    assert!(denied.contains("destination_workload=\"cart\""), "{denied}");
}

#[tokio::test]
async fn a_path_is_for_one_client_and_not_for_another() {
    let plane = Plane::new(telling("v1", false).await, AppProtocol::Http11).await;
    let mut one = of_path("/admin");
    one.principals = of_account("boss").principals;
    plane.policies(&[policy("boss", security::Action::Allow, &[one])]);
    let mut boss = plane.client(&peer("boss").await).await;
    let mut web = plane.client(&peer("web").await).await;
    assert_eq!(boss.get("/admin").await.0, 200);
    assert_eq!(boss.get("/").await.0, 403);
    assert_eq!(web.get("/admin").await.0, 403);
    assert_eq!(plane.client(&nobody()).await.get("/admin").await.0, 403);
}

#[tokio::test]
async fn grpc_is_refused_as_grpc() {
    let plane = Plane::new(telling("v1", true).await, AppProtocol::Grpc).await;
    plane.policies(&[policy(
        "none",
        security::Action::Deny,
        &[of_path("/shop.Cart/Buy")],
    )]);
    let mut client = plane.client2(&nobody()).await;
    let request = Request::post("http://cart.shop/shop.Cart/Buy")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body("x"));
    let response = client.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "7");
    assert!(
        response.headers()["grpc-message"]
            .to_str()
            .unwrap()
            .contains("shop/none")
    );
    assert!(plane.carrier.opened.lock().unwrap().is_empty());
}

#[tokio::test]
async fn who_the_client_is_is_told_as_it_was_proven() {
    let plane = Plane::new(telling("v1", false).await, AppProtocol::Http11).await;
    for (client, expected) in [
        (
            peer("web").await,
            Some("By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/web"),
        ),
        (nobody(), None),
    ] {
        let request = Request::get("/")
            .header("host", "cart.shop")
            .header(
                "x-forwarded-client-cert",
                "URI=spiffe://cluster.local/ns/shop/sa/admin",
            )
            .header("trefoil-peer", "spiffe://cluster.local/ns/shop/sa/admin")
            .body(body(""));
        let mut client = plane.client(&client).await;
        let (_, told) = text(client.send(request.unwrap()).await).await;
        let certificate = told
            .lines()
            .find_map(|line| line.strip_prefix("x-forwarded-client-cert: "));
        assert_eq!(certificate, expected);
        assert!(!told.contains("admin"), "{told}");
        assert!(
            told.contains("x-forwarded-for: 10.0.0.99") && told.contains("traceparent: 00-"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn connections_are_kept_and_never_shared_across_identities() {
    let connections = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = Plane::new(listener.local_addr().unwrap(), AppProtocol::Http11).await;
    let seen = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let of_connection = Arc::new(Mutex::new(HashSet::new()));
            seen.lock().unwrap().push(of_connection.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let client = request.headers().get("x-forwarded-client-cert").cloned();
                of_connection.lock().unwrap().insert(client);
                async { Ok::<_, Infallible>(Response::new(body("here"))) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let (web, shop) = (peer("web").await, peer("shop").await);
    for client in [&web, &shop, &web, &shop, &nobody()].repeat(4) {
        // Another connection each time: upstream ones outlive those.
        let mut client = plane.client(client).await;
        assert_eq!(client.get("/").await.0, 200);
    }
    let connections = connections.lock().unwrap();
    assert!(connections.iter().all(|seen| seen.lock().unwrap().len() == 1));
    assert!(
        (3..20).contains(&connections.len()),
        "{} for 20 requests",
        connections.len()
    );
}

/// What selects a workload changes with the workload, on connections too that were there before.
#[tokio::test]
async fn a_policy_that_selects_what_was_dialled_holds_for_the_next_request_and_is_gone_with_the_next() {
    let (app, protocol) = (telling("v1", false).await, AppProtocol::Http11);
    let plane = Plane::new(app, protocol).await;
    let web = peer("web").await;
    let mut clients = [plane.handed_over(&web).await, plane.client(&web).await];
    for client in &mut clients {
        assert_eq!(client.get("/admin").await.0, 200);
    }
    let mut no_admin = policy("no-admin", security::Action::Deny, &[of_path("/admin")]);
    no_admin.scope = security::Scope::WorkloadSelector.into();
    plane.policies(&[no_admin]);
    plane.selected("cart", 1, app, protocol, &["shop/no-admin"]);
    for client in &mut clients {
        assert_eq!(client.get("/admin").await.0, 403);
        assert_eq!(client.get("/").await.0, 200);
    }
    plane.selected("cart", 1, app, protocol, &[]);
    plane.no_policy("shop/no-admin");
    for client in &mut clients {
        assert_eq!(client.get("/admin").await.0, 200);
    }
}
