//! What passes, and how.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Notify, mpsc};
use tokio::time::timeout;
use trefoil_api::proto::istio::security;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::interim::{answer, client2};
use crate::plane::{Plane, TestBody, application, body, nobody, telling, text};
use crate::policy::{of_path, policy};

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A body of what is sent to it.
pub(crate) fn streamed() -> (mpsc::Sender<Frame<Bytes>>, TestBody) {
    let (send, receive) = mpsc::channel(1);
    let frames = futures::stream::unfold(receive, |mut receive| async {
        let frame: Frame<Bytes> = receive.recv().await?;
        Some((Ok::<_, std::io::Error>(frame), receive))
    });
    (
        send,
        StreamBody::new(frames).map_err(std::io::Error::other).boxed(),
    )
}

/// Sends back what it gets, with trailers.
pub(crate) fn echo(request: Request<Incoming>) -> impl Future<Output = Response<TestBody>> + Send {
    let mut response = Response::new(request.into_body().map_err(std::io::Error::other).boxed());
    response
        .headers_mut()
        .insert("trailer", HeaderValue::from_static("grpc-status"));
    async { response }
}

#[tokio::test]
async fn each_version_of_http_is_served_and_the_host_stays() {
    let plane = Plane::new(telling("one", false).await, AppProtocol::Unknown).await;
    let mut raw = plane.dial(&nobody()).await;
    raw.write_all(b"GET /old HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(
        answer.contains("one GET /old cart.shop.svc.cluster.local"),
        "{answer}"
    );
    let (_, told) = plane.client(&nobody()).await.get("/a/../b?x=%2f").await;
    assert!(told.starts_with("one GET /b cart.shop ?x=%2f"), "{told}");
    let two = Plane::new(telling("two", true).await, AppProtocol::Unknown).await;
    let request = Request::get("http://cart.shop:8080/x").body(body("")).unwrap();
    let (_, told) = text(two.client2(&nobody()).await.send_request(request).await.unwrap()).await;
    assert!(told.starts_with("two GET /x cart.shop:8080"), "{told}");
    // What the port declares is spoken with it, whatever the client speaks.
    let declared = Plane::new(telling("two", true).await, AppProtocol::Http2).await;
    assert!(
        declared
            .client(&nobody())
            .await
            .get("/x")
            .await
            .1
            .starts_with("two GET /x")
    );
}

#[tokio::test]
async fn grpc_streams_both_ways_and_ends_with_trailers() {
    let plane = Plane::new(application(true, echo).await, AppProtocol::Grpc).await;
    let (send, streaming) = streamed();
    let request = Request::post("http://cart.shop/shop.Cart/Watch")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(streaming);
    let mut client = plane.client2(&nobody()).await;
    let response = timeout(LONG, client.send_request(request.unwrap()))
        .await
        .unwrap()
        .unwrap();
    let mut received = response.into_body();
    for message in [&b"\0\0\0\0\x01a"[..], b"\0\0\0\0\x01b"] {
        send.send(Frame::data(Bytes::from_static(message))).await.unwrap();
        let frame = timeout(LONG, received.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("5"));
    send.send(Frame::trailers(trailers)).await.unwrap();
    drop(send);
    let frame = timeout(LONG, received.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "5");
    assert!(received.frame().await.is_none());
    let metrics = plane.metrics();
    assert!(metrics.contains("request_protocol=\"grpc\""), "{metrics}");
    assert!(metrics.contains("grpc_response_status=\"5\""), "{metrics}");
}

#[tokio::test]
async fn large_bodies_pass_and_what_is_not_read_is_not_taken() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 1_024;
    for (http2, protocol) in [(false, AppProtocol::Http11), (true, AppProtocol::Http2)] {
        let plane = Plane::new(application(http2, echo).await, protocol).await;
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = taken.clone();
        let chunks = futures::stream::iter(0..CHUNKS).map(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![7; CHUNK])))
        });
        let request = Request::post("http://cart.shop/").header("host", "cart.shop");
        let request = request.body(BodyExt::boxed(StreamBody::new(chunks))).unwrap();
        let response = match http2 {
            true => plane
                .client2(&nobody())
                .await
                .send_request(request)
                .await
                .unwrap(),
            false => plane.client(&nobody()).await.send(request).await,
        };
        // Until nothing moves any more.
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, taken.load(Ordering::SeqCst)) != before {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(
            before < CHUNKS / 2,
            "{before} of {CHUNKS} chunks were taken unread"
        );
        let all = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(all.len(), CHUNK * CHUNKS);
    }
}

/// An application that sends back what it gets, once it has left HTTP.
async fn websocket() -> std::net::SocketAddr {
    application(false, |mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            // Cut, as a rule.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        let mut response = Response::new(body(""));
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        response
    })
    .await
}

#[tokio::test]
async fn what_has_left_http_stays_while_it_is_allowed_and_is_cut_when_not() {
    let plane = Plane::new(websocket().await, AppProtocol::Http11).await;
    let only = |path| [policy("only", security::Action::Allow, &[of_path(path)])];
    plane.policies(&only("/ws"));
    let request = Request::get("/ws")
        .header("host", "a")
        .header("connection", "Upgrade");
    let request = request.header("upgrade", "websocket").body(body("")).unwrap();
    let mut response = plane.client(&nobody()).await.send(request).await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let mut heard = [0; 4];
    for _ in 0..3 {
        // Something changes, and it is still allowed.
        plane.policies(&only("/ws"));
        io.write_all(b"ping").await.unwrap();
        timeout(LONG, io.read_exact(&mut heard)).await.unwrap().unwrap();
    }
    plane.policies(&only("/other"));
    let ended = timeout(LONG, io.read(&mut heard)).await.expect("cut");
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
}

#[tokio::test]
async fn a_kept_connection_that_the_application_closed_is_no_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = Plane::new(listener.local_addr().unwrap(), AppProtocol::Http11).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = [0; 4096];
                assert!(stream.read(&mut read).await.unwrap() > 0);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .unwrap();
                // A second request is not answered but ended, as by an application that had just given up waiting.
                let _ = stream.read(&mut read).await;
            });
        }
    });
    let mut client = plane.client(&nobody()).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await, (200, "ok".into()));
    }
    let post = || Request::post("/").header("host", "a").body(body("")).unwrap();
    let mut posted = Vec::new();
    for _ in 0..20 {
        posted.push(text(client.send(post()).await).await.0);
    }
    // What is not idempotent is not sent twice.
    assert!(posted.contains(&502), "{posted:?}");
}

/// An application that takes one request at a time on a connection, and answers none before it has `both`, but those that
/// only ask whether it is there.
async fn one_at_a_time(both: Arc<Barrier>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let both = both.clone();
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection = builder
                    .max_concurrent_streams(1)
                    .handshake::<_, Bytes>(stream)
                    .await
                    .unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let both = both.clone();
                    tokio::spawn(async move {
                        if request.uri().path() != "/there" {
                            both.wait().await;
                        }
                        respond.send_response(http::Response::new(()), true).unwrap();
                    });
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn what_a_connection_has_no_room_for_goes_on_another() {
    let application = one_at_a_time(Arc::new(Barrier::new(2))).await;
    let plane = Plane::new(application, AppProtocol::Http2).await;
    let mut client = client2(&plane).await;
    let mut ask = |path: &str| {
        let request = Request::get(format!("http://a{path}")).version(http::Version::HTTP_2);
        let request = request.body(()).unwrap();
        answer(client.send_request(request, true).unwrap().0)
    };
    // By its answer it has said how many it takes.
    assert_eq!(ask("/there").await.0, 200);
    let both = futures::future::join(ask("/1"), ask("/2"));
    let (first, second) = timeout(LONG, both).await.expect("both at a time");
    assert_eq!((first.0, second.0), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn an_upgrade_becomes_bytes_both_ways() {
    let upgrading = application(false, |mut request: Request<Incoming>| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut asked = [0; 4];
            io.read_exact(&mut asked).await.unwrap();
            io.write_all(&asked).await.unwrap();
            io.write_all(b"pong").await.unwrap();
            io.shutdown().await.unwrap();
        });
        let mut response = Response::new(body(""));
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response
            .headers_mut()
            .insert("upgrade", HeaderValue::from_static("websocket"));
        response
            .headers_mut()
            .insert("connection", HeaderValue::from_static("Upgrade"));
        response
    });
    let plane = Plane::new(upgrading.await, AppProtocol::Http11).await;
    let request = Request::get("/ws")
        .header("host", "cart.shop")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(body(""));
    let mut client = plane.client(&nobody()).await;
    let mut response = client.send(request.unwrap()).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut answer = String::new();
    timeout(LONG, io.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, "pingpong");
}

#[tokio::test]
async fn bytes_that_are_no_http_pass_as_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = Plane::new(listener.local_addr().unwrap(), AppProtocol::Unknown).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 server speaks first\r\n").await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        stream.write_all(heard.as_bytes()).await.unwrap();
    });
    let mut client = plane.dial(&nobody()).await;
    let mut greeting = [0; 25];
    timeout(LONG, client.read_exact(&mut greeting))
        .await
        .unwrap()
        .unwrap();
    client.write_all(b"QUIT\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(LONG, client.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "QUIT\r\n");
}

#[tokio::test]
async fn who_asks_whether_to_go_on_is_told_once_it_is_allowed() {
    let plane = Plane::new(application(false, echo).await, AppProtocol::Http11).await;
    let mut client = plane.dial(&nobody()).await;
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut go_on = [0; 25];
    timeout(LONG, client.read_exact(&mut go_on))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    timeout(LONG, client.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"),
        "{answer}"
    );
}

/// Says when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_by_the_application() {
    for (http2, protocol) in [(false, AppProtocol::Http11), (true, AppProtocol::Http2)] {
        let (asked, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (at_application, leaving) = (asked.clone(), left.clone());
        let never = application(http2, move |_: Request<Incoming>| {
            let (asked, dropped) = (at_application.clone(), Dropped(leaving.clone()));
            async move {
                asked.notify_one();
                let _dropped = dropped;
                std::future::pending().await
            }
        });
        let plane = Plane::new(never.await, protocol).await;
        let request = Request::get("http://cart.shop/")
            .header("host", "cart.shop")
            .body(body(""))
            .unwrap();
        let asking = match http2 {
            true => {
                let mut client = plane.client2(&nobody()).await;
                tokio::spawn(async move { drop(client.send_request(request).await) })
            }
            false => {
                let mut client = plane.client(&nobody()).await;
                tokio::spawn(async move { drop(client.send.send_request(request).await) })
            }
        };
        timeout(LONG, asked.notified()).await.expect("asked");
        asking.abort();
        timeout(LONG, left.notified()).await.expect("noticed");
        // The record is dropped by another task than the one that tells the application.
        let counted = async {
            while !plane.metrics().contains("response_flags=\"DC\"") {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, counted).await.expect("counted");
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_its_first_head_is_told_of() {
    let plane = Plane::new(telling("cart", false).await, AppProtocol::Http11).await;
    let mut client = plane.dial(&nobody()).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: ca").await.unwrap();
    drop(client);
    let counted = async {
        while !plane.metrics().contains("response_flags=\"DC\"") {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, counted).await.expect("counted");
    // Who leaves between requests has been told of with each of them.
    let mut client = plane.client(&nobody()).await;
    assert_eq!(client.get("/").await.0, 200);
    drop(client);
    assert!(plane.metrics().contains("response_flags=\"-\""));
}

#[tokio::test]
async fn an_application_that_breaks_off_does_not_look_finished() {
    let broken = application(false, |_: Request<Incoming>| async {
        let frames = futures::stream::iter([
            Ok(Frame::data(Bytes::from_static(b"half"))),
            Err(std::io::Error::other("broken")),
        ]);
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    });
    let plane = Plane::new(broken.await, AppProtocol::Http11).await;
    let mut client = plane.client(&nobody()).await;
    let request = Request::get("/").header("host", "a").body(body("")).unwrap();
    // It may break before the head has passed: then the answer is the plane's own.
    let response = client.send(request).await;
    let own = response.status() == 502;
    assert!(own || response.into_body().collect().await.is_err());
    assert!(plane.metrics().contains("response_flags=\"UC\""));
}

#[tokio::test]
async fn who_is_asked_to_leave_between_requests_hears_of_it_with_the_next_answer() {
    let application = telling("cart", false).await;
    let plane = Plane::new(application, AppProtocol::Http11).await;
    let (leave, ended) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let mut client = plane.leaving(&nobody(), leave.clone(), ended.clone()).await;
    assert_eq!(client.get("/before").await.0, 200);
    leave.notify_one();
    let told = async {
        loop {
            let request = Request::get("/after").header(header::HOST, "cart.shop");
            // One that met an end of the connection would have no answer.
            let answer = client.send(request.body(body("")).unwrap()).await;
            assert_eq!(answer.status(), 200);
            let said = answer.headers().get(header::CONNECTION).cloned();
            text(answer).await;
            if let Some(said) = said {
                return said;
            }
        }
    };
    assert_eq!(timeout(LONG, told).await.expect("told"), "close");
    let ended = async {
        while !ended.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, ended).await.expect("the connection ends");
}

#[tokio::test]
async fn who_is_asked_to_leave_finishes_first() {
    let leave = Arc::new(Notify::new());
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let served = Arc::new(AtomicBool::new(false));
    let (at_application, told) = (asked.clone(), answer.clone());
    let slow = application(false, move |_: Request<Incoming>| {
        let (asked, answer) = (at_application.clone(), told.clone());
        async move {
            asked.notify_one();
            answer.notified().await;
            Response::new(body("done"))
        }
    });
    let plane = Plane::new(slow.await, AppProtocol::Http11).await;
    let mut client = plane.leaving(&nobody(), leave.clone(), served.clone()).await;
    let asking = tokio::spawn(async move { client.get("/").await });
    timeout(LONG, asked.notified()).await.expect("asked");
    leave.notify_one();
    answer.notify_one();
    assert_eq!(
        timeout(LONG, asking).await.unwrap().unwrap(),
        (200, "done".into())
    );
    let ended = async {
        while !served.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, ended).await.expect("the connection ends");
}

/// Bodies whose length is known keep it.
#[tokio::test]
async fn lengths_are_kept() {
    let length = application(false, |request: Request<Incoming>| async move {
        let exact = request.body().size_hint().exact();
        Response::new(body(format!("{exact:?}")))
    });
    let plane = Plane::new(length.await, AppProtocol::Http11).await;
    let request = Request::post("/")
        .header("host", "a")
        .body(body("12345"))
        .unwrap();
    let response = plane.client(&nobody()).await.send(request).await;
    assert!(response.headers().contains_key("content-length"));
    assert_eq!(text(response).await.1, "Some(5)");
}

/// Applications are known that put trailers among the fields of the head.
#[tokio::test]
async fn nobody_speaks_for_the_mesh_in_trailers_either() {
    let telling = application(true, |request: Request<Incoming>| async move {
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let mut names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        Response::new(body(names.join(" ")))
    });
    let plane = Plane::new(telling.await, AppProtocol::Http2).await;
    let (send, streaming) = streamed();
    let request = Request::post("http://cart.shop/").body(streaming).unwrap();
    let mut trailers = HeaderMap::new();
    for name in [
        "x-forwarded-client-cert",
        "trefoil-peer",
        "forwarded",
        "x-checksum",
    ] {
        trailers.insert(name, HeaderValue::from_static("URI=spiffe://admin"));
    }
    let sending = async move {
        send.send(Frame::data(Bytes::from_static(b"x"))).await.unwrap();
        send.send(Frame::trailers(trailers)).await.unwrap();
    };
    let mut client = plane.client2(&nobody()).await;
    let answered = async { tokio::join!(client.send_request(request), sending).0 };
    let response = timeout(LONG, answered).await.unwrap().unwrap();
    assert_eq!(text(response).await, (200, "x-checksum".to_owned()));
}
