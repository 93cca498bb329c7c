//! Requests that can be read in two ways, written byte by byte: none reaches the application.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::plane::{Plane, application, body, nobody};

/// A plane, and how many requests its application got.
async fn plane() -> (Plane, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = reached.clone();
    let application = application(false, move |_: Request<Incoming>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Response::new(body("reached")) }
    });
    (Plane::new(application.await, AppProtocol::Http11).await, reached)
}

/// What is answered to `sent`, to the connection's end.
async fn answer(plane: &Plane, sent: &[u8]) -> String {
    let mut client = plane.dial(&nobody()).await;
    client.write_all(sent).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good an end.
    let _ = client.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("no answer")
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let (plane, reached) = plane().await;
    for sent in [
        // Where a message ends.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Where a field ends.
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        // Whose request it is.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        // Which path it is for.
        "GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /../a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = answer(&plane, sent.as_bytes()).await;
        assert_eq!(status(&answer), "400", "{sent:?}: {answer:?}");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let (plane, reached) = plane().await;
    let fields: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let countless = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(status(&answer(&plane, countless.as_bytes()).await), "431");
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(status(&answer(&plane, large.as_bytes()).await), "431");
    let connect = answer(&plane, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    assert_eq!(status(&connect), "405");
    let mut client = plane.client2(&nobody()).await;
    let large = Request::get("http://a/")
        .header("x", "x".repeat(100_000))
        .body(body(""))
        .unwrap();
    let answered = client
        .send_request(large)
        .await
        .map(|response| response.status().as_u16());
    assert!(!matches!(answered, Ok(200)), "{answered:?}");
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn http2_confuses_no_hosts() {
    let (plane, reached) = plane().await;
    let mut client = plane.client2(&nobody()).await;
    let two = Request::get("http://a/")
        .header("host", "b")
        .body(body(""))
        .unwrap();
    assert_eq!(client.send_request(two).await.unwrap().status(), 400);
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}
