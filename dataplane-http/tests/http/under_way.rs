//! What is under way when policy changes.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trefoil_api::proto::istio::security::{self, Authorization};
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::carry::{LONG, echo, streamed};
use crate::lines::LINES;
use crate::plane::{Plane, Says, TestBody, application, body, nobody, text};
use crate::policy::{of_path, policy};

const BOTH: [(bool, AppProtocol); 2] = [(false, AppProtocol::Http11), (true, AppProtocol::Http2)];

/// Only these paths may be asked for.
fn only(paths: &[&str]) -> [Authorization; 1] {
    let asks: Vec<_> = paths.iter().map(|path| of_path(path)).collect();
    let mut policy = policy("only", security::Action::Allow, &asks);
    // Each of its own: one clause would ask for all.
    let clauses = std::mem::take(&mut policy.rules[0].clauses);
    policy.rules = clauses
        .into_iter()
        .map(|clause| security::Rule {
            clauses: vec![clause],
        })
        .collect();
    [policy]
}

/// A plane that records its access log.
async fn plane(application: std::net::SocketAddr, protocol: AppProtocol) -> Plane {
    LazyLock::force(&LINES);
    Plane::new(application, protocol).await
}

async fn ask(plane: &Plane, http2: bool, path: &str, body: TestBody) -> Response<Incoming> {
    let request = Request::post(format!("http://cart.shop{path}"))
        .header("host", "cart.shop")
        .body(body)
        .unwrap();
    let asking = async {
        match http2 {
            true => plane
                .client2(&nobody())
                .await
                .send_request(request)
                .await
                .unwrap(),
            false => plane.client(&nobody()).await.send(request).await,
        }
    };
    timeout(LONG, asking).await.expect("answered")
}

/// An application whose answer begins, and goes on for as long as it may; what ends with it is told.
async fn endless(http2: bool) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (ended, end) = mpsc::unbounded_channel();
    let application = application(http2, move |_: Request<Incoming>| {
        let says = Says(ended.clone());
        let frames = futures::stream::unfold((0_u64, says), |(number, says)| async move {
            if number > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let frame = Frame::data(Bytes::from_static(b"more"));
            Some((Ok::<_, std::io::Error>(frame), (number + 1, says)))
        });
        let body = BodyExt::boxed(StreamBody::new(frames));
        async move { Response::new(body) }
    });
    (application.await, end)
}

#[tokio::test]
async fn a_response_that_is_no_longer_allowed_ends_and_does_not_look_finished() {
    for (http2, protocol) in BOTH {
        let (application, mut ended) = endless(http2).await;
        let plane = plane(application, protocol).await;
        let path = if http2 {
            "/cut-response-2"
        } else {
            "/cut-response-1"
        };
        plane.policies(&only(&[path]));
        let mut response = ask(&plane, http2, path, body("")).await;
        for _ in 0..3 {
            assert!(timeout(LONG, response.frame()).await.unwrap().unwrap().is_ok());
        }
        plane.policies(&only(&["/other"]));
        let cut = async {
            loop {
                match response.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    None => panic!("it looks finished"),
                }
            }
        };
        let error = timeout(LONG, cut).await.expect("cut");
        if http2 {
            let source = std::error::Error::source(&error).unwrap();
            let reset = source.downcast_ref::<h2::Error>().unwrap();
            assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
        }
        timeout(LONG, ended.recv())
            .await
            .expect("the application is told");
        let line = LINES.of(path).await;
        assert_eq!((&*line["code"], &*line["response_flags"]), ("200", "DENY"));
        assert_eq!((&*line["layer"], &*line["policy"]), ("policy", "shop/only"));
        assert!(line["reason"].contains("shop/only"), "{line:?}");
        assert!(plane.metrics().contains("response_flags=\"DENY\""));
    }
}

#[tokio::test]
async fn what_is_allowed_is_not_disturbed() {
    for (http2, protocol) in BOTH {
        let (send, mut sent) = mpsc::channel::<()>(1);
        let (application, _ended) = endless(http2).await;
        let plane = plane(application, protocol).await;
        let path = "/undisturbed";
        let mut response = ask(&plane, http2, path, body("")).await;
        let reading = tokio::spawn(async move {
            let mut frames = 0;
            while sent.try_recv().is_err() {
                assert!(response.frame().await.unwrap().is_ok());
                frames += 1;
            }
            frames
        });
        for round in 0..50 {
            plane.policies(&only(&[path, if round % 2 == 0 { "/a" } else { "/b" }]));
            plane.endpoint("cart", 1, application, protocol);
            tokio::task::yield_now().await;
        }
        plane.policies(&[]);
        send.send(()).await.unwrap();
        assert!(timeout(LONG, reading).await.unwrap().unwrap() > 0);
    }
}

#[tokio::test]
async fn what_was_not_answered_yet_is_refused_as_it_would_be_now() {
    for (http2, protocol) in BOTH {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let (ended, mut end) = mpsc::unbounded_channel();
        let silent = application(http2, move |_: Request<Incoming>| {
            let (asked, says) = (asked.clone(), Says(ended.clone()));
            async move {
                let _says = says;
                asked.send(()).unwrap();
                std::future::pending().await
            }
        });
        let plane = Arc::new(plane(silent.await, protocol).await);
        let path = if http2 { "/cut-early-2" } else { "/cut-early-1" };
        let asking = tokio::spawn({
            let plane = plane.clone();
            async move { text(ask(&plane, http2, path, body("")).await).await }
        });
        timeout(LONG, asks.recv()).await.expect("asked");
        plane.policies(&only(&["/other"]));
        let (status, reason) = asking.await.unwrap();
        assert_eq!(status, 403);
        assert!(
            reason.starts_with("policy: ") && reason.contains("shop/only"),
            "{reason}"
        );
        timeout(LONG, end.recv()).await.expect("the application is told");
        let line = LINES.of(path).await;
        assert_eq!((&*line["code"], &*line["response_flags"]), ("403", "DENY"));
        assert_eq!(line["policy"], "shop/only");
    }
}

/// An application that reads, says how it ended, and answers only then.
async fn reading(http2: bool) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<bool>) {
    let (progress, told) = mpsc::unbounded_channel();
    let application = application(http2, move |request: Request<Incoming>| {
        let progress = progress.clone();
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                progress.send(frame.is_ok()).unwrap();
                if frame.is_err() {
                    break;
                }
            }
            Response::new(crate::plane::body("read"))
        }
    });
    (application.await, told)
}

#[tokio::test]
async fn a_request_that_is_no_longer_allowed_is_not_read_on() {
    for (http2, protocol) in BOTH {
        let (application, mut read) = reading(http2).await;
        let plane = Arc::new(plane(application, protocol).await);
        let path = if http2 { "/cut-request-2" } else { "/cut-request-1" };
        let (send, streaming) = streamed();
        let asking = tokio::spawn({
            let plane = plane.clone();
            async move { text(ask(&plane, http2, path, streaming).await).await }
        });
        let piece = || Frame::data(Bytes::from_static(b"piece"));
        for _ in 0..3 {
            send.send(piece()).await.unwrap();
            assert_eq!(timeout(LONG, read.recv()).await.unwrap(), Some(true));
        }
        plane.policies(&only(&["/other"]));
        let (status, reason) = timeout(LONG, asking).await.expect("refused").unwrap();
        assert!(status == 403 && reason.contains("shop/only"), "{status} {reason}");
        let broken = async { while read.recv().await != Some(false) {} };
        timeout(LONG, broken).await.expect("the application is told");
        assert_eq!(LINES.of(path).await["bytes_recv"], "15");
    }
}

#[tokio::test]
async fn a_request_that_outlives_its_response_is_still_decided_about() {
    let (progress, mut read) = mpsc::unbounded_channel();
    // It answers, whole, and reads on.
    let application = application(true, move |request: Request<Incoming>| {
        let progress = progress.clone();
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                // The test may be over.
                let _ = progress.send(frame.is_ok());
                if frame.is_err() {
                    break;
                }
            }
        });
        async { Response::new(body("answered")) }
    });
    let plane = plane(application.await, AppProtocol::Http2).await;
    let (send, streaming) = streamed();
    let response = ask(&plane, true, "/outlives", streaming).await;
    assert_eq!(text(response).await, (200, "answered".into()));
    plane.policies(&only(&["/other"]));
    // Whoever writes on is told, sooner or later; nothing of it is read as if it were allowed.
    let writing = async {
        while send.send(Frame::data(Bytes::from_static(b"piece"))).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let ended = async { while !matches!(read.recv().await, Some(false) | None) {} };
    timeout(LONG, async {
        tokio::select! {
            () = writing => {}
            () = ended => {}
        }
    })
    .await
    .expect("ended");
}

/// A call that says `messages`, and its answer's body once that many came back.
async fn call(
    plane: &Plane,
    path: &str,
    messages: &[&'static [u8]],
) -> (mpsc::Sender<Frame<Bytes>>, Incoming) {
    let (send, streaming) = streamed();
    let request = Request::post(format!("http://cart.shop{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(streaming);
    let mut client = plane.client2(&nobody()).await;
    let answering = client.send_request(request.unwrap());
    let mut received = timeout(LONG, answering).await.unwrap().unwrap().into_body();
    for message in messages {
        send.send(Frame::data(Bytes::from_static(message))).await.unwrap();
        let frame = timeout(LONG, received.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), *message);
    }
    (send, received)
}

fn said(trailers: &HeaderMap) -> (&HeaderValue, &str) {
    let message = trailers["grpc-message"].to_str().unwrap();
    (&trailers["grpc-status"], message)
}

#[tokio::test]
async fn a_grpc_call_that_is_no_longer_allowed_is_told_why() {
    let plane = plane(application(true, echo).await, AppProtocol::Grpc).await;
    let path = "/shop.Cart/Cut";
    plane.policies(&only(&[path]));
    let (_send, mut received) = call(&plane, path, &[b"\0\0\0\0\x01a", b"\0\0\0\0\x01b"]).await;
    plane.policies(&only(&["/shop.Cart/Other"]));
    let last = timeout(LONG, received.frame())
        .await
        .expect("cut")
        .unwrap()
        .unwrap();
    let trailers = last.into_trailers().expect("trailers");
    let (status, message) = said(&trailers);
    assert_eq!(status, "7");
    assert!(
        message.starts_with("policy: ") && message.contains("shop/only"),
        "{message}"
    );
    assert!(received.frame().await.is_none());
    let line = LINES.of(path).await;
    assert_eq!((&*line["grpc_status"], &*line["response_flags"]), ("7", "DENY"));
    assert_eq!(line["policy"], "shop/only");
    assert_eq!(messages(&plane), [2, 2]);
}

#[tokio::test]
async fn within_a_message_a_grpc_call_is_reset() {
    let plane = plane(application(true, echo).await, AppProtocol::Grpc).await;
    let (_send, mut received) = call(&plane, "/shop.Cart/Half", &[b"\0\0\0\0\x03a"]).await;
    plane.policies(&only(&["/shop.Cart/Other"]));
    let last = timeout(LONG, received.frame()).await.expect("cut").unwrap();
    assert!(last.is_err(), "{last:?}");
    LINES.of("/shop.Cart/Half").await;
    assert_eq!(messages(&plane), [0, 0]);
}

/// Messages of the one series of gRPC, by their direction.
fn messages(plane: &Plane) -> [u64; 2] {
    let metrics = plane.metrics();
    ["istio_request_messages_total{", "istio_response_messages_total{"].map(|name| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.expect("a series");
        assert!(line.contains("request_protocol=\"grpc\""), "{line}");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    })
}

#[tokio::test]
async fn of_two_requests_of_one_connection_only_the_denied_one_ends() {
    let plane = plane(application(true, echo).await, AppProtocol::Http2).await;
    plane.policies(&only(&["/stays", "/goes"]));
    let mut client = plane.client2(&nobody()).await;
    let mut under_way = Vec::new();
    for path in ["/stays", "/goes"] {
        let (send, streaming) = streamed();
        let request = Request::post(format!("http://cart.shop{path}"))
            .body(streaming)
            .unwrap();
        let response = timeout(LONG, client.send_request(request))
            .await
            .unwrap()
            .unwrap();
        under_way.push((send, response.into_body()));
    }
    let (_gone, mut cut) = under_way.pop().unwrap();
    let (send, mut received) = under_way.pop().unwrap();
    plane.policies(&only(&["/stays"]));
    assert!(timeout(LONG, cut.frame()).await.expect("cut").unwrap().is_err());
    send.send(Frame::data(Bytes::from_static(b"here"))).await.unwrap();
    let frame = timeout(LONG, received.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "here");
    // The connection still serves.
    let request = Request::post("http://cart.shop/stays").body(body("yes")).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(text(response).await, (200, "yes".into()));
}

#[tokio::test]
async fn an_http1_answer_in_chunks_is_cut_before_its_last() {
    let (application, _ended) = endless(false).await;
    let plane = plane(application, AppProtocol::Http11).await;
    let mut client = plane.dial(&nobody()).await;
    client
        .write_all(b"GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 64];
    timeout(LONG, client.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    plane.policies(&only(&["/other"]));
    let rest = timeout(LONG, client.read_to_end(&mut answer)).await;
    // An end or a reset: either way no last chunk.
    let _ = rest.expect("cut");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(!answer.ends_with(b"0\r\n\r\n"));
}
