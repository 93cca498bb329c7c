//! Requests that can be read in two ways, written byte by byte: none reaches the application.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::carry::LONG;
use crate::plane::{Plane, application, body, nobody, until};

const TWO_WAYS: &[&str] = &[
    // Where a message ends.
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
    // Where a chunk ends.
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 a\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\na\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=\ry\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\r\n folded\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\n\r\n",
    // Where a field ends.
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX(): b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
    "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    // Whose request it is.
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n",
    "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n",
    // Which path it is for.
    "GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /../a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /%2e%2e/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/..;x/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%0d%0aX:%20b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%7f HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// A plane, and how many requests its application got.
pub(crate) async fn plane() -> (Plane, Arc<AtomicUsize>) {
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
    for sent in TWO_WAYS {
        let answer = answer(&plane, sent.as_bytes()).await;
        assert_eq!(status(&answer), "400", "{sent:?}: {answer:?}");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    until("each is counted", || refused(&plane) == TWO_WAYS.len()).await;
}

/// Requests that are counted as refused for what they are.
pub(crate) fn refused(plane: &Plane) -> usize {
    let metrics = plane.metrics();
    let of = metrics
        .lines()
        .filter(|line| line.starts_with("istio_requests_total") && line.contains("response_flags=\"DPE\""));
    of.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}

/// What comes behind a head that was good is cut, where it can be read in two ways: nothing of it is a request.
#[tokio::test]
async fn what_goes_wrong_within_a_body_ends_the_connection() {
    for rest in [
        "1\r\naXX0\r\n\r\n",
        "zz\r\n",
        "1\n",
        "1\r\na\r\n0\r\nT: 1\r\n f\r\n\r\n",
        "1;\na\r\n",
    ] {
        let (ended, mut end) = mpsc::unbounded_channel();
        let (reading, mut read) = mpsc::unbounded_channel();
        let application = application(false, move |request: Request<Incoming>| {
            let (ended, reading) = (ended.clone(), reading.clone());
            async move {
                reading.send(()).unwrap();
                ended.send(request.into_body().collect().await.is_ok()).unwrap();
                Response::new(body("read"))
            }
        });
        let plane = Plane::new(application.await, AppProtocol::Http11).await;
        let mut client = plane.dial(&nobody()).await;
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        client.write_all(head).await.unwrap();
        timeout(LONG, read.recv()).await.expect("it has begun");
        let smuggled = format!("{rest}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(smuggled.as_bytes()).await.unwrap();
        let whole = timeout(LONG, end.recv()).await.expect("it has ended");
        assert_eq!(whole, Some(false), "{rest:?}");
        let mut answer = Vec::new();
        // An end or a reset.
        let _ = timeout(LONG, client.read_to_end(&mut answer)).await.expect("cut");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{rest:?}");
        assert!(read.try_recv().is_err(), "{rest:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let (plane, reached) = plane().await;
    let fields: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let countless = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(status(&answer(&plane, countless.as_bytes()).await), "431");
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(status(&answer(&plane, large.as_bytes()).await), "431");
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000));
    assert_eq!(status(&answer(&plane, target.as_bytes()).await), "431");
    let connect = answer(&plane, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    assert_eq!(status(&connect), "405");
    until("each is counted", || refused(&plane) == 4).await;
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}
