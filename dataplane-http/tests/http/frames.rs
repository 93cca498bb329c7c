//! Requests of HTTP/2 that no client would send, frame by frame: none reaches the application.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::carry::LONG;
use crate::plane::{Plane, nobody, until};
use crate::refuse::{plane, refused};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// Of the fields' end, and of the stream's.
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    /// The first bytes of its answer's head.
    Answered(Vec<u8>),
    Reset,
    Ended,
}

impl Became {
    /// Status 400 and 431 as they are written: by their place in the static table, or spelled out behind the place of
    /// their name (RFC 7541, sections 6.1 and 6.2.1).
    fn is(&self, status: u16) -> bool {
        let Self::Answered(head) = self else {
            return false;
        };
        match status {
            200 => head.starts_with(&[0x88]),
            400 => head.starts_with(&[0x8c]),
            // In its shorter code (RFC 7541, appendix B).
            431 => head.starts_with(&[0x48, 0x83, 0x69, 0x90, 0xff]),
            _ => false,
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field, spelled out (RFC 7541, section 6.2.2).
fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name.as_bytes(), value] {
        // A length beyond seven bits goes on in bytes of seven.
        let mut length = text.len();
        if length < 127 {
            field.push(length as u8);
        } else {
            field.push(127);
            length -= 127;
            while length >= 128 {
                field.push((length % 128 + 128) as u8);
                length /= 128;
            }
            field.push(length as u8);
        }
        field.extend(text);
    }
    field
}

async fn became(client: &mut TcpStream) -> Became {
    loop {
        let mut head = [0; 9];
        if client.read_exact(&mut head).await.is_err() {
            return Became::Ended;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if client.read_exact(&mut payload).await.is_err() {
            return Became::Ended;
        }
        match head[3] {
            HEADERS => return Became::Answered(payload),
            RESET => return Became::Reset,
            GO_AWAY => return Became::Ended,
            _ => {}
        }
    }
}

/// Sends one request of these fields over a connection of its own.
async fn ask(plane: &Plane, fields: &[(&str, &[u8])]) -> Became {
    let mut client = plane.dial(&nobody()).await;
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    let mut sent = PREFACE.to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    let mut parts = block.chunks(16_384).peekable();
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        let end = if kind == HEADERS { END_STREAM } else { 0 };
        sent.extend(frame(kind, last | end, 1, part));
        kind = CONTINUATION;
    }
    // It may be refused before all is written.
    let _ = client.write_all(&sent).await;
    timeout(LONG, became(&mut client)).await.expect("in time")
}

/// A request, with `more` behind what every one has.
async fn with(plane: &Plane, more: &[(&str, &[u8])]) -> Became {
    let usual: [(&str, &[u8]); 4] = [
        (":method", b"GET"),
        (":scheme", b"http"),
        (":authority", b"a"),
        (":path", b"/x"),
    ];
    let replaced = |name: &str| {
        more.iter()
            .any(|(other, _)| *other == name && name.starts_with(':'))
    };
    let kept = usual.iter().filter(|(name, _)| !replaced(name));
    let fields: Vec<_> = kept.chain(more).copied().collect();
    ask(plane, &fields).await
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_answered_with_400() {
    let (plane, reached) = plane().await;
    assert!(with(&plane, &[]).await.is(200));
    assert_eq!(reached.swap(0, Ordering::SeqCst), 1);
    let all: [&[(&str, &[u8])]; 12] = [
        &[("host", b"b")],
        &[("host", b"a"), ("host", b"a")],
        &[(":authority", b"u@a")],
        &[("content-length", b"0"), ("content-length", b"0")],
        &[(":path", b"/a%2fb")],
        &[(":path", b"/a%5cb")],
        &[(":path", b"/a\\b")],
        &[(":path", b"/%2e%2e/a")],
        &[(":path", b"/a/..;/b")],
        &[(":path", b"/a%00")],
        &[(":path", b"/a%0d%0ax:y")],
        &[(":path", b"/a%zz")],
    ];
    for fields in all {
        let became = with(&plane, fields).await;
        assert!(became.is(400), "{fields:?}: {became:?}");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    until("each is counted", || refused(&plane) == all.len()).await;
}

/// The parser resets these without a word to anybody: they are no requests (RFC 9113, section 8.1.1).
#[tokio::test]
async fn what_is_malformed_is_reset_and_reaches_nobody() {
    let (plane, reached) = plane().await;
    let all: [&[(&str, &[u8])]; 19] = [
        &[("x", b"a\r\nb: c")],
        &[("x", b"a\nb")],
        &[("x", b"a\0b")],
        &[("x\r\ny", b"a")],
        &[("X-Upper", b"a")],
        &[("x y", b"a")],
        &[("connection", b"x")],
        &[("transfer-encoding", b"chunked")],
        &[("upgrade", b"websocket")],
        &[("te", b"gzip")],
        &[("content-length", b"3")],
        &[("content-length", b"0, 0")],
        &[("content-length", b"0"), ("content-length", b"3")],
        &[("content-length", b"-1")],
        &[("content-length", b"99999999999999999999")],
        &[(":path", b"")],
        &[(":authority", b"a, b")],
        &[(":path", b"/a b\0")],
        &[("x", b"a"), (":method", b"POST")],
    ];
    for fields in all {
        let became = with(&plane, fields).await;
        let refused = matches!(became, Became::Reset | Became::Ended) || became.is(400);
        assert!(refused, "{fields:?}: {became:?}");
    }
    // What says who it is for twice, or not at all.
    for fields in [
        &[
            (":method", &b"GET"[..]),
            (":scheme", b"http"),
            (":path", b"/"),
            (":path", b"/b"),
            (":authority", b"a"),
        ][..],
        &[
            (":method", b"GET"),
            (":scheme", b"http"),
            (":path", b"/"),
            (":authority", b"a"),
            (":authority", b"b"),
        ],
        &[(":method", b"GET"), (":scheme", b"http"), (":path", b"/")],
        &[(":scheme", b"http"), (":path", b"/"), (":authority", b"a")],
        &[
            (":method", b"GET"),
            (":scheme", b"http"),
            (":path", b"a"),
            (":authority", b"a"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"http"),
            (":path", b"http://b/x"),
            (":authority", b"a"),
        ],
        &[
            (":method", b"GET"),
            (":scheme", b"http"),
            (":path", b"*"),
            (":authority", b"a"),
        ],
    ] {
        let became = ask(&plane, fields).await;
        assert!(!became.is(200), "{fields:?}: {became:?}");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_too_large_is_answered_with_431() {
    let (plane, reached) = plane().await;
    let countless = vec![("x", &b"1"[..]); 101];
    let large = [("x", &vec![b'x'; 70_000][..])];
    let half = [b'/'; 40_000];
    let long = [(":path", &half[..]), ("x", &half)];
    for fields in [&countless[..], &large, &long] {
        let became = with(&plane, fields).await;
        assert!(became.is(431), "{became:?}");
    }
    until("each is counted", || refused(&plane) == 3).await;
    // What is larger yet is refused by the parser, which counts nothing.
    let larger = with(&plane, &[("x", &vec![b'x'; 300_000])]).await;
    assert!(!larger.is(200), "{larger:?}");
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}
