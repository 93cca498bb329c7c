//! Limits and retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Incoming};
use trefoil_api::proto::istio::workload::AppProtocol;
use trefoil_api::proto::trefoil::v1 as message;

use crate::carry::LONG;
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
