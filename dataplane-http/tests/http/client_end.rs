//! At the client's own end: routes are applied that are this end's to apply, nothing is decided, and the application is
//! told nothing of who the client is, which its own end finds out.

use http::Request;
use trefoil_api::proto::istio::security::Action;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::peers::peer;
use crate::plane::{Plane, application, body, telling, text};
use crate::policy::policy;
use crate::routes::{route, to};

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "cart")
}

#[tokio::test]
async fn nothing_is_decided_and_nobody_is_named() {
    let listing = application(false, |request| async move {
        let mut names: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        http::Response::new(body(names.join(" ")))
    })
    .await;
    let plane = Plane::of_client(listing, AppProtocol::Http11).await;
    // It would refuse everybody: whoever has to decide does.
    plane.policies(&[policy("nobody", Action::Allow, &[])]);
    let mut client = plane.client(&peer("web").await).await;
    let forged = get("/").header(
        "x-forwarded-client-cert",
        "URI=spiffe://cluster.local/ns/shop/sa/admin",
    );
    let asked = forged.header("trefoil-peer", "none").body(body("")).unwrap();
    let (status, names) = text(client.send(asked).await).await;
    assert_eq!((status, names.as_str()), (200, "host traceparent x-request-id"));
    let metrics = plane.metrics();
    assert!(metrics.contains(r#"reporter="source""#), "{metrics}");
    assert!(
        metrics.contains(r#"connection_security_policy="mutual_tls""#),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_routes_of_a_service_are_its_waypoints_once_it_has_one() {
    let protocol = AppProtocol::Http11;
    let plane = Plane::of_client(telling("first", false).await, protocol).await;
    plane.service("next", 2, protocol);
    plane.endpoint("next", 2, telling("second", false).await, protocol);
    plane.route(&route(vec![to(&[("next", 1)])]));
    let mut client = plane.client(&peer("web").await).await;
    let mut answered = async || {
        let asked = get("/").body(body("")).unwrap();
        text(client.send(asked).await).await.1
    };
    assert!(answered().await.starts_with("second"));
    // On a connection that there was: whoever serves it sees to it that it is made anew.
    plane.service_through("cart", 1, protocol, Some("door"));
    assert!(answered().await.starts_with("first"));
    plane.service("cart", 1, protocol);
    assert!(answered().await.starts_with("second"));
}
