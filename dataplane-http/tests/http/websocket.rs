//! WebSockets over HTTP/2: extended CONNECT from the client, an upgrade to the application.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use trefoil_api::proto::istio::security;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::carry::LONG;
use crate::plane::{Plane, TestBody, application, body, nobody, text};
use crate::policy::{of_method, of_path, policy};

/// An application that answers a key as `accepting` says, and then sends back what it gets.
async fn echoing(accepting: fn(&str) -> String) -> SocketAddr {
    application(false, move |mut request: Request<Incoming>| async move {
        let told = request.headers().clone();
        assert_eq!(request.method(), Method::GET);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            // Cut, as a rule.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        let mut response = Response::new(body(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let accepted = accepting(told["sec-websocket-key"].to_str().unwrap());
        let headers = response.headers_mut();
        headers.insert("upgrade", told["upgrade"].clone());
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("sec-websocket-accept", accepted.parse().unwrap());
        headers.insert("sec-websocket-protocol", told["sec-websocket-protocol"].clone());
        response
    })
    .await
}

fn rightly(key: &str) -> String {
    let both = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, both.as_bytes()))
}

/// A client that has heard that extended CONNECT is served.
async fn client(plane: &Plane) -> http2::SendRequest<TestBody> {
    let io = TokioIo::new(plane.dial(&nobody()).await);
    let (send, mut connection) = http2::handshake::<_, _, TestBody>(TokioExecutor::new(), io)
        .await
        .unwrap();
    // Nobody is woken by it.
    let served = async {
        while !connection.is_extended_connect_protocol_enabled() {
            let once = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll(cx)));
            assert!(once.await.is_pending(), "the connection ended");
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, served).await.expect("it is served");
    tokio::spawn(connection);
    send
}

fn connect(path: &str, protocol: &'static str) -> Request<TestBody> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://cart.shop{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(body(""))
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

#[tokio::test]
async fn it_becomes_an_upgrade_of_the_application_and_is_cut_when_no_longer_allowed() {
    for protocol in [AppProtocol::Http11, AppProtocol::Unknown, AppProtocol::Http2] {
        let plane = Plane::new(echoing(rightly).await, protocol).await;
        let only = |path| [policy("only", security::Action::Allow, &[of_path(path)])];
        plane.policies(&only("/ws"));
        let mut client = client(&plane).await;
        let mut response = client
            .send_request(connect("/x/../ws", "websocket"))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        for hop in ["upgrade", "connection", "sec-websocket-accept"] {
            assert!(!response.headers().contains_key(hop), "{hop}");
        }
        let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        let mut heard = [0; 4];
        for _ in 0..3 {
            plane.policies(&only("/ws"));
            io.write_all(b"ping").await.unwrap();
            timeout(LONG, io.read_exact(&mut heard)).await.unwrap().unwrap();
            assert_eq!(&heard, b"ping");
        }
        plane.policies(&only("/other"));
        let ended = timeout(LONG, io.read(&mut heard)).await.expect("cut");
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
        // Decided about as the GET that it stands for, and refused as one.
        let refused = client.send_request(connect("/ws", "websocket")).await.unwrap();
        assert_eq!(refused.status(), 403);
    }
}

#[tokio::test]
async fn a_method_in_policy_is_that_of_the_request_it_stands_for() {
    let plane = Plane::new(echoing(rightly).await, AppProtocol::Http11).await;
    plane.policies(&[policy("get", security::Action::Allow, &[of_method("GET")])]);
    let mut client = client(&plane).await;
    let allowed = client.send_request(connect("/ws", "websocket")).await.unwrap();
    assert_eq!(allowed.status(), 200);
}

#[tokio::test]
async fn who_does_not_answer_the_key_or_does_not_switch_is_no_websocket() {
    let wrongly = echoing(|_| "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into()).await;
    let ordinary = application(false, |_: Request<Incoming>| async {
        Response::new(body("hello"))
    })
    .await;
    for application in [wrongly, ordinary] {
        let plane = Plane::new(application, AppProtocol::Http11).await;
        let mut client = client(&plane).await;
        let response = client.send_request(connect("/ws", "websocket")).await.unwrap();
        let (status, reason) = text(response).await;
        assert_eq!(status, 502);
        assert!(reason.starts_with("application: "), "{reason}");
    }
    let refusing = application(false, |_: Request<Incoming>| async {
        let mut response = Response::new(body("who are you?"));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    });
    let plane = Plane::new(refusing.await, AppProtocol::Http11).await;
    let response = client(&plane)
        .await
        .send_request(connect("/ws", "websocket"))
        .await
        .unwrap();
    assert_eq!(text(response).await, (401, "who are you?".into()));
}

#[tokio::test]
async fn of_connect_nothing_else_is_served() {
    let plane = Plane::new(echoing(rightly).await, AppProtocol::Http11).await;
    let mut client = client(&plane).await;
    let other = client.send_request(connect("/ws", "connect-udp")).await.unwrap();
    assert_eq!(other.status(), 501);
    let plain = Request::connect("cart.shop:80").body(body("")).unwrap();
    assert_eq!(client.send_request(plain).await.unwrap().status(), 405);
    assert!(plane.carrier.opened.lock().unwrap().is_empty());
}
