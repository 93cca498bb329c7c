//! The time that a gRPC call has.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Incoming};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::carry::LONG;
use crate::plane::{Plane, Says, TestBody, application, body, nobody};
use crate::resilience::retrying;
use crate::routes::{route, to};

/// An application that answers nothing, or begins to; that a call has ended there is told.
async fn unfinished(begins: bool) -> (Plane, mpsc::UnboundedReceiver<()>) {
    let (ended, end) = mpsc::unbounded_channel();
    let application = application(true, move |_: Request<Incoming>| {
        let says = Says(ended.clone());
        async move {
            if !begins {
                let _says = says;
                return std::future::pending().await;
            }
            let first = Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"\0\0\0\0\x01a")));
            let first = futures::stream::iter([first]);
            let rest = futures::stream::unfold(says, |_says| std::future::pending());
            grpc(BodyExt::boxed(StreamBody::new(futures::StreamExt::chain(
                first, rest,
            ))))
        }
    });
    (Plane::new(application.await, AppProtocol::Grpc).await, end)
}

fn grpc(body: TestBody) -> Response<TestBody> {
    let mut response = Response::new(body);
    let content = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", content);
    response
}

async fn call(plane: &Plane, has: &str) -> Response<Incoming> {
    let request = Request::post("http://cart.shop/shop.Cart/Buy")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", has)
        .header("te", "trailers")
        .body(body(&b"\0\0\0\0\x01x"[..]));
    let mut client = plane.client2(&nobody()).await;
    let answering = client.send_request(request.unwrap());
    timeout(LONG, answering).await.expect("in time").unwrap()
}

fn said(headers: &HeaderMap) -> (&str, &str) {
    let of = |name: &str| headers[name].to_str().unwrap();
    (of("grpc-status"), of("grpc-message"))
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_its_time_is_ended_at_both_sides() {
    let (plane, mut end) = unfinished(false).await;
    let began = Instant::now();
    let response = call(&plane, "200m").await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(response.status(), 200);
    let (status, message) = said(response.headers());
    assert_eq!(status, "4");
    assert!(message.contains("grpc-timeout"), "{message}");
    timeout(LONG, end.recv()).await.expect("the application is told");
    let metrics = plane.metrics();
    assert!(
        metrics.contains("response_flags=\"UT\"") && metrics.contains("grpc_response_status=\"4\""),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_ends_with_the_reason() {
    let (plane, mut end) = unfinished(true).await;
    let mut received = call(&plane, "300m").await.into_body();
    let first = timeout(LONG, received.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), &b"\0\0\0\0\x01a"[..]);
    let last = timeout(LONG, received.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(said(&last.into_trailers().unwrap()).0, "4");
    timeout(LONG, end.recv()).await.expect("the application is told");
}

#[tokio::test]
async fn the_shorter_of_the_callers_time_and_the_routes_counts() {
    for (has, whole, attempt, expected) in [
        ("10S", 100, 0, "limit for the request"),
        ("10S", 0, 100, "limit for an attempt"),
        ("100m", 10_000, 10_000, "grpc-timeout"),
    ] {
        let (plane, _end) = unfinished(false).await;
        let mut rule = to(&[("cart", 1)]);
        rule.request_timeout_milliseconds = whole;
        rule.backend_request_timeout_milliseconds = attempt;
        plane.route(&route(vec![rule]));
        let response = call(&plane, has).await;
        let (status, message) = said(response.headers());
        assert!(status == "4" && message.contains(expected), "{status} {message}");
    }
}

#[tokio::test]
async fn what_is_no_time_is_refused_and_none_left_is_late() {
    let (plane, _end) = unfinished(false).await;
    for (has, expected) in [("1s", "13"), ("123456789S", "13"), ("soon", "13"), ("0n", "4")] {
        let response = call(&plane, has).await;
        assert_eq!(said(response.headers()).0, expected, "{has}");
    }
    assert!(plane.carrier.opened.lock().unwrap().is_empty());
}

#[tokio::test]
async fn each_attempt_is_told_what_is_left() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let application = application(true, move |request: Request<Incoming>| {
        let mut told = telling.lock().unwrap();
        told.push(request.headers()["grpc-timeout"].to_str().unwrap().to_owned());
        let mut response = grpc(body(""));
        if told.len() < 3 {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
            .headers_mut()
            .insert("grpc-status", HeaderValue::from_static("0"));
        async { response }
    });
    let plane = Plane::new(application.await, AppProtocol::Grpc).await;
    let mut rule = retrying(3);
    rule.retry.as_mut().unwrap().backoff_milliseconds = 20;
    plane.route(&route(vec![rule]));
    let response = call(&plane, "10S").await;
    assert_eq!(response.headers()["grpc-status"], "0");
    let told = told.lock().unwrap();
    let microseconds: Vec<u64> = told
        .iter()
        .map(|told| told.strip_suffix('u').expect("microseconds").parse().unwrap())
        .collect();
    assert_eq!(microseconds.len(), 3);
    assert!(microseconds[0] < 10_000_000, "{told:?}");
    let shorter = |pair: &[u64]| pair[0] - pair[1] >= 20_000;
    assert!(microseconds.windows(2).all(shorter), "{told:?}");
}
