//! Answers of applications that no client should see: written byte by byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use trefoil_api::proto::istio::workload::AppProtocol;

use crate::carry::LONG;
use crate::plane::{Plane, body, nobody, until};

/// A plane whose application answers each request with `answer` and closes where it says so; and how many connections
/// it got.
async fn answering(answer: Vec<u8>, closes: bool) -> (Plane, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = Plane::new(listener.local_addr().unwrap(), AppProtocol::Http11).await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut read = [0; 4096];
                while stream.read(&mut read).await.unwrap_or(0) > 0 {
                    // The plane may have closed.
                    if stream.write_all(&answer).await.is_err() || closes {
                        return;
                    }
                }
            });
        }
    });
    (plane, accepted)
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let countless: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let all = [
        "hello\r\n".to_owned(),
        "HTTP/1.1 2x0 OK\r\n\r\n".into(),
        "HTTP/1.1 20 OK\r\n\r\n".into(),
        "HTTP/1.1 099 OK\r\n\r\n".into(),
        "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nx\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nx: a\rb: c\r\ncontent-length: 0\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 0\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc".into(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(),
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        format!("HTTP/1.1 200 OK\r\n{countless}\r\n"),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
    ];
    for answer in all {
        let (plane, _) = answering(answer.clone().into_bytes(), true).await;
        let (status, reason) = plane.client(&nobody()).await.get("/").await;
        assert_eq!(status, 502, "{answer:.80?}");
        assert!(reason.starts_with("application: "), "{reason}");
        let counted = || plane.metrics().contains("response_flags=\"UC\"");
        until("it is counted", counted).await;
    }
}

#[tokio::test]
async fn what_goes_wrong_within_an_answer_does_not_look_finished() {
    for rest in [
        "zz\r\nab\r\n0\r\n\r\n",
        "2\r\nabXX0\r\n\r\n",
        "-1\r\nab\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        "2\r\nab\r\n0\r\nx: a\0b\r\n\r\n",
        "2\r\nab\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n{rest}");
        let (plane, _) = answering(answer.into_bytes(), true).await;
        let request = Request::get("/").header("host", "a").body(body("")).unwrap();
        let response = plane.client(&nobody()).await.send(request).await;
        // It may go wrong before the head has passed: then the answer is the plane's own.
        let own = response.status() == 502;
        let read = timeout(LONG, response.into_body().collect()).await.expect("cut");
        assert!(own || read.is_err(), "{rest:?}: {read:?}");
        until("it is counted", || {
            plane.metrics().contains("response_flags=\"UC\"")
        })
        .await;
    }
}

/// A second answer to one request is nobody's, least of all another client's.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let one = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nright";
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong";
    let (plane, accepted) = answering(format!("{one}{two}").into_bytes(), false).await;
    let mut client = plane.client(&nobody()).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await, (200, "right".into()));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn what_is_passed_on_is_written_anew() {
    let usual = "HTTP/1.1 200 OK\r\nX-A:   b  \r\nconnection: x-hop, close\r\nx-hop: 1\r\ncontent-length: 2\r\n\r\nok";
    for answer in [usual.to_owned(), usual.replace("\r\n", "\n")] {
        let (plane, _) = answering(answer.into(), true).await;
        let mut client = plane.dial(&nobody()).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut read = String::new();
        timeout(LONG, client.read_to_string(&mut read))
            .await
            .unwrap()
            .unwrap();
        assert!(
            read.contains("\r\nx-a: b\r\n") && !read.contains("x-hop"),
            "{read}"
        );
        assert!(read.ends_with("\r\n\r\nok"), "{read}");
        assert!(!read.replace("\r\n", "").contains(['\r', '\n']), "{read}");
    }
}
