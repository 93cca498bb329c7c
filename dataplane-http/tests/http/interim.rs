//! Interim responses.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::carry::LONG;
use crate::plane::{Plane, body, nobody, text};

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
    // Nor is the library heard to say them in HTTP/2.
    may_answer.notify_one();
    let request = http::Request::get("http://a/").body(body("")).unwrap();
    let response = plane
        .client2(&nobody())
        .await
        .send_request(request)
        .await
        .unwrap();
    assert_eq!(text(response).await, (200, "ok".into()));
}
