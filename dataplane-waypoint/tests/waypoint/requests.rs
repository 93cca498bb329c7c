//! HTTP through the waypoint: decided request by request, as the client, whatever the way.

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trefoil_api::Identity;
use trefoil_api::names::extension;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::security::{self, Authorization, StringMatch, string_match::MatchType};
use trefoil_api::proto::istio::workload::AppProtocol;
use trefoil_api::proto::trefoil::v1 as trefoil;
use trefoil_api::proto::type_url;
use trefoil_dataplane_state::state::Consumer;

use crate::fixture::{Guarded, key};
use crate::mesh::{Mesh, deny};
use crate::through::ways;

/// Answers each request with its own head.
async fn tell(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            while let Some((head, _)) = message(&mut stream).await {
                let length = head.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
    }
}

/// The head of the next message, and its body; none once there are no more.
async fn message(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    Some((head, String::from_utf8(body).unwrap()))
}

async fn get(stream: &mut TcpStream, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: cart.shop\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = message(stream).await.expect("an answer");
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    (status, body)
}

async fn guarded(mesh: Mesh, protocol: AppProtocol) -> Guarded {
    let listener = mesh.server.listen().await;
    let application = listener.local_addr().unwrap();
    tokio::spawn(tell(listener));
    Guarded::of(mesh, application, protocol)
}

/// Denies a principal a path.
fn deny_path(principal: &Identity, path: &str) -> Authorization {
    let asked = trefoil::HttpRequestMatch {
        paths: vec![StringMatch {
            match_type: Some(MatchType::Exact(path.into())),
        }],
        ..trefoil::HttpRequestMatch::default()
    };
    let mut policy = deny("no-secrets", principal);
    let extensions = &mut policy.rules[0].clauses[0].matches[0].extensions;
    extensions.push(security::Extension {
        name: extension::HTTP.into(),
        config: Some(prost_types::Any {
            type_url: type_url::HTTP_REQUEST_MATCH.into(),
            value: asked.encode_to_vec(),
        }),
    });
    policy
}

#[tokio::test]
async fn requests_are_decided_one_by_one_as_the_clients() {
    for protocol in [AppProtocol::Http11, AppProtocol::Unknown] {
        for mesh in [Mesh::new().await, Mesh::same_node().await] {
            let guarded = guarded(mesh, protocol).await;
            let web = guarded.mesh.client.identity();
            guarded.mesh.policies(&[deny_path(&web, "/secret")]);
            for (way, mut stream) in ways(&guarded).await {
                let (status, told) = get(&mut stream, "/open").await;
                assert_eq!(status, "200", "{way}");
                let says = told.contains(&format!("uri={web}"));
                assert_eq!(says, way != "plaintext", "{way}: {told}");
                let (status, _) = get(&mut stream, "/secret").await;
                let expected = if way == "plaintext" { "200" } else { "403" };
                assert_eq!(status, expected, "{way}");
                let (status, _) = get(&mut stream, "/x/../secret").await;
                assert_eq!(status, expected, "{way}: another spelling");
                let (status, _) = get(&mut stream, "/open").await;
                assert_eq!(status, "200", "{way}: the connection is still there");
            }
        }
    }
}

/// What was dialled by its own address, or handed over, is neither routed nor balanced anew.
#[tokio::test]
async fn routes_are_for_those_who_dial_the_service() {
    let guarded = guarded(Mesh::new().await, AppProtocol::Http11).await;
    let change = trefoil::HttpHeaderChange {
        set: vec![trefoil::HttpHeader {
            name: "x-routed".into(),
            value: "yes".into(),
        }],
        ..trefoil::HttpHeaderChange::default()
    };
    let filter = trefoil::HttpRouteFilter {
        kind: Some(trefoil::http_route_filter::Kind::RequestHeaders(change)),
    };
    let rule = trefoil::HttpRouteRule {
        filters: vec![filter],
        backends: vec![trefoil::HttpRouteBackend {
            service: key("cart"),
            port: guarded.service.port().into(),
            weight: 1,
            ..trefoil::HttpRouteBackend::default()
        }],
        ..trefoil::HttpRouteRule::default()
    };
    let route = trefoil::HttpRoute {
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: "cart".into(),
        parents: vec![trefoil::RouteParent {
            service: key("cart"),
            port: 0,
        }],
        rules: vec![rule],
        ..trefoil::HttpRoute::default()
    };
    let said = |name: &str, route: &trefoil::HttpRoute| DeltaDiscoveryResponse {
        type_url: type_url::HTTP_ROUTE.into(),
        resources: vec![Resource {
            name: name.into(),
            resource: Some(prost_types::Any {
                type_url: type_url::HTTP_ROUTE.into(),
                value: route.encode_to_vec(),
            }),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    };
    let routes = &guarded.door.routes;
    assert_eq!(routes.apply(&said("HTTPRoute/shop/cart", &route)), []);
    let routed = async || {
        let mut routed = Vec::new();
        for (way, mut stream) in ways(&guarded).await {
            let (status, told) = get(&mut stream, "/").await;
            assert_eq!(status, "200", "{way}");
            if told.contains("x-routed: yes") {
                routed.push(way);
            }
        }
        routed
    };
    assert_eq!(routed().await, ["its service"]);

    // One that is not understood leaves the last good one; one of another name is not taken; removed, it is gone.
    let mut strange = route.clone();
    strange.kind = "TeapotRoute".into();
    assert_eq!(routes.apply(&said("HTTPRoute/shop/cart", &strange)).len(), 1);
    assert_eq!(routes.apply(&said("HTTPRoute/shop/other", &route)).len(), 1);
    assert_eq!(routed().await, ["its service"]);
    let removed = DeltaDiscoveryResponse {
        type_url: type_url::HTTP_ROUTE.into(),
        removed_resources: vec!["HTTPRoute/shop/cart".into()],
        ..DeltaDiscoveryResponse::default()
    };
    assert_eq!(routes.apply(&removed), []);
    assert!(routed().await.is_empty());
}
