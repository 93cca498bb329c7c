//! Limits and retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Incoming};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use trefoil_api::proto::istio::workload::AppProtocol;
use trefoil_api::proto::trefoil::v1 as message;

use crate::carry::LONG;
use crate::interim::{answer, client2};
use crate::plane::{Plane, application, body, nobody, text};
use crate::routes::{route, to};

pub(crate) fn retrying(attempts: u32) -> message::HttpRouteRule {
    let mut rule = to(&[("cart", 1)]);
    rule.retry = Some(message::HttpRetry {
        attempts,
        codes: vec![503],
        backoff_milliseconds: 1,
    });
    rule
}

/// A plane whose application fails so many requests with 503, then sends back what it gets; and how many it got.
async fn failing(failures: usize, http2: bool) -> (Plane, Arc<AtomicUsize>) {
    let got = Arc::new(AtomicUsize::new(0));
    let counted = got.clone();
    let application = application(http2, move |request: Request<Incoming>| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = Response::new(body(bytes));
            if number < failures {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    });
    let protocol = if http2 {
        AppProtocol::Http2
    } else {
        AppProtocol::Http11
    };
    (Plane::new(application.await, protocol).await, got)
}

#[tokio::test]
async fn what_fails_is_tried_again_with_the_same_body() {
    for http2 in [false, true] {
        let (plane, got) = failing(2, http2).await;
        plane.route(&route(vec![retrying(3)]));
        let request = Request::post("/")
            .header("host", "a")
            .body(body("again"))
            .unwrap();
        let response = plane.client(&nobody()).await.send(request).await;
        assert_eq!(text(response).await, (200, "again".into()));
        assert_eq!(got.load(Ordering::SeqCst), 3);
    }
}

/// An application that refuses the first request before it has read it, and grants it more all the same; what it gets of
/// the second is told piece by piece.
async fn hasty(got: watch::Sender<usize>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let builder = h2::server::Builder::new().initial_window_size(600).clone();
        let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
        let mut refused = None;
        let more = Arc::new(Notify::new());
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (mut body, more) = (request.into_body(), more.clone());
            if refused.is_none() {
                let refusal = http::Response::builder().status(503).body(()).unwrap();
                respond.send_response(refusal, true).unwrap();
                refused = Some(tokio::spawn(async move {
                    while let Some(Ok(data)) = body.data().await {
                        more.notified().await;
                        let _ = body.flow_control().release_capacity(data.len());
                    }
                }));
                continue;
            }
            let got = got.clone();
            tokio::spawn(async move {
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    more.notify_one();
                    got.send_modify(|length| *length += data.len());
                }
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                let length = got.borrow().to_string();
                stream.send_data(length.into(), true).unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn an_upload_that_is_refused_midway_is_sent_again_to_its_end() {
    let (sender, mut got) = watch::channel(0);
    let plane = Plane::new(hasty(sender).await, AppProtocol::Http2).await;
    plane.route(&route(vec![retrying(3)]));
    let mut client = client2(&plane).await;
    let request = Request::post("http://a/").version(http::Version::HTTP_2);
    let (response, mut upload) = client.send_request(request.body(()).unwrap(), false).unwrap();
    for piece in 1..=20 {
        upload.send_data(vec![1; 1_000].into(), false).unwrap();
        let whole = got.wait_for(|length| *length >= 1_000 * piece);
        tokio::time::timeout(LONG, whole)
            .await
            .expect("the second gets it")
            .unwrap();
    }
    upload.send_data(Bytes::new(), true).unwrap();
    assert_eq!(answer(response).await, (http::StatusCode::OK, "20000".into()));
}

#[tokio::test]
async fn no_more_is_tried_than_the_rule_says_and_the_failure_is_the_applications() {
    let (plane, got) = failing(10, false).await;
    plane.route(&route(vec![retrying(2)]));
    let mut client = plane.client(&nobody()).await;
    assert_eq!(client.get("/").await.0, 503);
    assert_eq!(got.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_is_too_large_to_keep_is_sent_once() {
    let (plane, got) = failing(1, false).await;
    plane.route(&route(vec![retrying(3)]));
    let request = Request::post("/")
        .header("host", "a")
        .body(body(vec![1; 300_000]))
        .unwrap();
    let response = plane.client(&nobody()).await.send(request).await;
    assert_eq!(response.status(), 503);
    assert_eq!(got.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let (plane, got) = failing(usize::MAX, false).await;
    plane.route(&route(vec![retrying(5)]));
    let mut client = plane.client(&nobody()).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.0, 503);
    }
    // A hundred, ten at once, and a fifth.
    let got = got.load(Ordering::SeqCst);
    assert!((100..=130).contains(&got), "{got}");
}

#[tokio::test]
async fn connections_that_do_not_come_about_are_no_failure_of_the_request() {
    let (plane, _) = failing(0, false).await;
    plane.carrier.failing.store(2, Ordering::SeqCst);
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"once")))]);
    let request = Request::post("/")
        .header("host", "a")
        .body(StreamBody::new(chunks).boxed())
        .unwrap();
    let mut client = plane.client(&nobody()).await;
    assert_eq!(text(client.send(request).await).await, (200, "once".into()));
    plane.carrier.failing.store(1_000, Ordering::SeqCst);
    let (plane, _) = failing(0, false).await;
    plane.carrier.failing.store(1_000, Ordering::SeqCst);
    let (status, reason) = plane.client(&nobody()).await.get("/").await;
    assert_eq!(
        (status, reason.as_str()),
        (503, "application: refused, as told\n")
    );
    assert_eq!(plane.carrier.opened.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let silent = application(false, |_: Request<Incoming>| std::future::pending()).await;
    let plane = Plane::new(silent, AppProtocol::Http11).await;
    for (whole, attempt, expected) in [(50, 0, "for the request"), (0, 50, "for an attempt")] {
        let mut rule = to(&[("cart", 1)]);
        rule.request_timeout_milliseconds = whole;
        rule.backend_request_timeout_milliseconds = attempt;
        plane.route(&route(vec![rule]));
        let (status, reason) = plane.client(&nobody()).await.get("/").await;
        assert_eq!(status, 504);
        assert!(reason.contains(expected), "{reason}");
    }
    assert!(plane.metrics().contains("response_flags=\"UT\""));
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut() {
    let endless = application(false, |_: Request<Incoming>| async {
        let begins = futures::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(
            b"begins",
        )))]);
        let frames = futures::StreamExt::chain(begins, futures::stream::pending());
        Response::new(StreamBody::new(frames).boxed())
    });
    let plane = Plane::new(endless.await, AppProtocol::Http11).await;
    let mut rule = to(&[("cart", 1)]);
    rule.request_timeout_milliseconds = 200;
    plane.route(&route(vec![rule]));
    let request = Request::get("/").header("host", "a").body(body("")).unwrap();
    let response = plane.client(&nobody()).await.send(request).await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_retry_that_would_come_too_late_is_not_made() {
    for http2 in [false, true] {
        let (plane, got) = failing(10, http2).await;
        let mut rule = retrying(3);
        rule.request_timeout_milliseconds = 5_000;
        rule.retry.as_mut().unwrap().backoff_milliseconds = 60_000;
        plane.route(&route(vec![rule]));
        // What the application said, at once.
        let answering = plane.client(&nobody()).await.get("/").await;
        assert_eq!(answering.0, 503);
        assert_eq!(got.load(Ordering::SeqCst), 1);
    }
    let (plane, got) = failing(10, false).await;
    plane.carrier.failing.store(1, Ordering::SeqCst);
    let mut rule = to(&[("cart", 1)]);
    // Less than the shortest wait.
    rule.request_timeout_milliseconds = 10;
    plane.route(&route(vec![rule]));
    let (status, reason) = plane.client(&nobody()).await.get("/").await;
    assert_eq!(
        (status, reason.as_str()),
        (503, "application: refused, as told\n")
    );
    assert_eq!(got.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_retry_that_is_not_answered_in_time_ends_with_the_request() {
    let got = Arc::new(AtomicUsize::new(0));
    let counted = got.clone();
    let once = application(false, move |_: Request<Incoming>| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if number > 0 {
                return std::future::pending().await;
            }
            let mut response = Response::new(body(""));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    });
    let plane = Plane::new(once.await, AppProtocol::Http11).await;
    let mut rule = retrying(3);
    rule.request_timeout_milliseconds = 300;
    plane.route(&route(vec![rule]));
    let (status, reason) = plane.client(&nobody()).await.get("/").await;
    assert!(status == 504 && reason.contains("for the request"), "{reason}");
    assert_eq!(got.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_is_used_until_it_is_too_old() {
    for http2 in [false, true] {
        let (plane, _) = failing(0, http2).await;
        plane.max_age(1);
        let opened = || plane.carrier.opened.lock().unwrap().len();
        let mut client = plane.client(&nobody()).await;
        let began = Instant::now();
        while opened() < 3 {
            assert_eq!(client.get("/").await.0, 200);
            assert!(began.elapsed() < LONG, "{} connections", opened());
        }
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
