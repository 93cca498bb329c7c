//! Interim responses.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use trefoil_api::proto::istio::security;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::carry::LONG;
use crate::plane::{Plane, application, body, nobody};
use crate::policy::{of_method, policy};

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An application that hints, and answers once it may.
async fn hinting(times: usize, may_answer: Arc<Notify>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let may_answer = may_answer.clone();
            tokio::spawn(async move {
                let mut read = [0; 4096];
                while stream.read(&mut read).await.unwrap_or(0) > 0 {
                    for _ in 0..times {
                        stream.write_all(HINTS).await.unwrap();
                    }
                    may_answer.notified().await;
                    stream.write_all(ANSWER).await.unwrap();
                }
            });
        }
    });
    address
}

async fn head(client: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(timeout(LONG, client.read_u8()).await.expect("in time").unwrap());
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn hints_are_passed_on_before_the_answer_is_there() {
    let may_answer = Arc::new(Notify::new());
    let plane = Plane::new(hinting(2, may_answer.clone()).await, AppProtocol::Http11).await;
    let mut client = plane.dial(&nobody()).await;
    // More than one request of one connection, and of one kept connection to the application.
    for _ in 0..3 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..2 {
            let hints = head(&mut client).await;
            assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        }
        may_answer.notify_one();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
        let mut rest = [0; 2];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"ok");
    }
}

#[tokio::test]
async fn hints_that_come_with_the_answer_stay_before_it_however_requests_are_sent() {
    let may_answer = Arc::new(Notify::new());
    let plane = Plane::new(hinting(1, may_answer.clone()).await, AppProtocol::Http11).await;
    let mut client = plane.dial(&nobody()).await;
    let requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20);
    client.write_all(&requests).await.unwrap();
    for _ in 0..20 {
        may_answer.notify_one();
        let mut one = head(&mut client).await;
        if one.starts_with("HTTP/1.1 103") {
            one = head(&mut client).await;
        }
        assert!(one.starts_with("HTTP/1.1 200 OK\r\n"), "{one}");
        let mut rest = [0; 2];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"ok");
    }
}

#[tokio::test]
async fn who_cannot_read_hints_gets_none() {
    let may_answer = Arc::new(Notify::new());
    let plane = Plane::new(hinting(1, may_answer.clone()).await, AppProtocol::Http11).await;
    let mut old = plane.dial(&nobody()).await;
    old.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    may_answer.notify_one();
    let mut answer = String::new();
    timeout(LONG, old.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

/// The same application over HTTP/2, which also says what is not to be passed on.
async fn hinting2(times: usize, may_answer: Arc<Notify>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let may_answer = may_answer.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let may_answer = may_answer.clone();
                    tokio::spawn(async move {
                        for _ in 0..times {
                            let hints =
                                interim(103, &[("link", "</a.css>"), ("x-forwarded-client-cert", "By=me")]);
                            respond.send_informational(hints).unwrap();
                        }
                        respond.send_informational(interim(100, &[])).unwrap();
                        may_answer.notified().await;
                        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                        stream.send_data("ok".into(), true).unwrap();
                    });
                }
            });
        }
    });
    address
}

fn interim(status: u16, fields: &[(&'static str, &'static str)]) -> http::Response<()> {
    let mut interim = http::Response::builder().status(status);
    for (name, value) in fields {
        interim = interim.header(*name, *value);
    }
    interim.body(()).unwrap()
}

/// A client of HTTP/2 that hears interim responses.
pub(crate) async fn client2(plane: &Plane) -> h2::client::SendRequest<Bytes> {
    let stream = plane.dial(&nobody()).await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn get() -> http::Request<()> {
    let request = http::Request::get("http://a/").version(http::Version::HTTP_2);
    request.body(()).unwrap()
}

async fn said(response: &mut h2::client::ResponseFuture) -> http::Response<()> {
    let said = timeout(LONG, poll_fn(|cx| response.poll_informational(cx))).await;
    said.expect("in time").expect("before the answer").unwrap()
}

pub(crate) async fn answer(response: h2::client::ResponseFuture) -> (http::StatusCode, Bytes) {
    let response = timeout(LONG, response).await.expect("in time").unwrap();
    let (head, mut body) = response.into_parts();
    let mut all = Vec::new();
    while let Some(data) = timeout(LONG, body.data()).await.expect("in time") {
        all.extend_from_slice(&data.unwrap());
    }
    (head.status, all.into())
}

#[tokio::test]
async fn hints_are_passed_on_whichever_version_either_end_speaks() {
    for protocol in [AppProtocol::Http11, AppProtocol::Http2] {
        let may_answer = Arc::new(Notify::new());
        let application = match protocol {
            AppProtocol::Http2 => hinting2(2, may_answer.clone()).await,
            _ => hinting(2, may_answer.clone()).await,
        };
        let plane = Plane::new(application, protocol).await;
        let mut client = client2(&plane).await;
        for _ in 0..3 {
            let (mut response, _) = client.send_request(get(), true).unwrap();
            for _ in 0..2 {
                let hints = said(&mut response).await;
                assert_eq!(hints.status(), 103);
                assert_eq!(hints.headers()["link"], "</a.css>");
                assert_eq!(hints.headers().len(), 1);
            }
            may_answer.notify_one();
            assert_eq!(answer(response).await, (http::StatusCode::OK, "ok".into()));
        }
    }
    // And in HTTP/1.1, what was heard in HTTP/2.
    let may_answer = Arc::new(Notify::new());
    let plane = Plane::new(hinting2(1, may_answer.clone()).await, AppProtocol::Http2).await;
    let mut client = plane.dial(&nobody()).await;
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        head(&mut client).await,
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
    );
    may_answer.notify_one();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn of_endless_hints_a_client_is_told_so_much_and_then_the_answer() {
    let may_answer = Arc::new(Notify::new());
    let plane = Plane::new(hinting2(10_000, may_answer.clone()).await, AppProtocol::Http2).await;
    let mut client = client2(&plane).await;
    let (mut response, _) = client.send_request(get(), true).unwrap();
    said(&mut response).await;
    may_answer.notify_one();
    let mut heard = 1;
    while let Some(hints) = timeout(LONG, poll_fn(|cx| response.poll_informational(cx)))
        .await
        .expect("in time")
    {
        assert_eq!(hints.unwrap().status(), 103);
        heard += 1;
    }
    assert!(heard < 1_000, "{heard}");
    assert_eq!(answer(response).await, (http::StatusCode::OK, "ok".into()));
}

#[tokio::test]
async fn who_waits_for_a_sign_gets_it_once_the_body_is_wanted_and_no_sooner() {
    let application = application(false, |request: http::Request<Incoming>| async move {
        assert!(!request.headers().contains_key("expect"));
        let whole = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(body(whole))
    });
    let plane = Plane::new(application.await, AppProtocol::Http11).await;
    let mut client = client2(&plane).await;
    let mut request = get();
    *request.method_mut() = http::Method::PUT;
    let expects = http::HeaderValue::from_static("100-continue");
    request.headers_mut().insert("expect", expects);
    let (mut response, mut upload) = client.send_request(request.clone(), false).unwrap();
    assert_eq!(said(&mut response).await.status(), 100);
    upload.send_data("whole".into(), true).unwrap();
    assert_eq!(answer(response).await, (http::StatusCode::OK, "whole".into()));
    // Who is refused is not asked for it.
    plane.policies(&[policy("get", security::Action::Allow, &[of_method("GET")])]);
    let (mut response, _upload) = client.send_request(request, false).unwrap();
    let none = timeout(LONG, poll_fn(|cx| response.poll_informational(cx))).await;
    assert!(none.expect("in time").is_none());
    assert_eq!(answer(response).await.0, http::StatusCode::FORBIDDEN);
}
