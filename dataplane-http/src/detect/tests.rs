use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

#[test]
fn protocols_are_told_by_how_they_begin() {
    for (beginning, expected) in [
        (&b""[..], None),
        (b"GET", None),
        (b"GET /", None),
        (b"GET / HTTP/1.1\r", None),
        (b"GET \r / HTTP/1.1\n", Some(Spoken::Bytes)),
        (b"GET / HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"GET / HTTP/1.0\nHost: a\n", Some(Spoken::Http1)),
        (b"GET http://a/ HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"CONNECT a:1 HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"GET / HTTP/0.9\r\n", Some(Spoken::Bytes)),
        (b"PRI * HT", None),
        (PREFACE, Some(Spoken::Http2)),
        (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Spoken::Bytes)),
        (b"SSH-2.0-OpenSSH_9\r\n", Some(Spoken::Bytes)),
        (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Bytes)),
        (b"PING\r\n", Some(Spoken::Bytes)),
        (b"\x16\x03\x01", Some(Spoken::Bytes)),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Some(Spoken::Bytes)),
        (b"EHLO mail\r\n", Some(Spoken::Bytes)),
        (b"GET key\r\n", Some(Spoken::Bytes)),
    ] {
        assert_eq!(recognise(beginning), expected, "{}", beginning.escape_ascii());
    }
}

proptest! {
    /// What was decided stays decided, however the bytes arrive.
    #[test]
    fn more_bytes_change_no_mind(bytes in prop_oneof![
        any::<Vec<u8>>(),
        "(GET|PRI|PING) [/* a-z]{0,4}( HTTP/[12][.][01])?\r?\n.{0,8}".prop_map(String::into_bytes),
    ]) {
        let decided = (0..=bytes.len()).find_map(|end| recognise(&bytes[..end]).map(|spoken| (end, spoken)));
        if let Some((end, spoken)) = decided {
            prop_assert_eq!(recognise(&bytes), Some(spoken), "after {}", end);
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_waits_no_longer_than_said() {
    let (client, mut server) = tokio::io::duplex(64);
    let began = Instant::now();
    let heard = hear(&mut server, Protocol::Unknown, PATIENCE).await.unwrap();
    assert!(heard.spoken == Spoken::Bytes && heard.silent);
    let waited = began.elapsed();
    assert!(waited >= PATIENCE && waited < HTTP_PATIENCE / 2, "{waited:?}");
    // Without waiting at all: that it is ready at once is what tells.
    let declared = futures::FutureExt::now_or_never(hear(&mut server, Protocol::Tcp, PATIENCE));
    let declared = declared.expect("at once").unwrap();
    assert!(declared.spoken == Spoken::Bytes && !declared.silent);
    // A client that leaves was not waited for.
    drop(client);
    let heard = hear(&mut server, Protocol::Unknown, PATIENCE).await.unwrap();
    assert!(heard.spoken == Spoken::Bytes && !heard.silent);
}

#[tokio::test]
async fn nothing_is_lost() {
    for (declared, sent, expected) in [
        (Protocol::Unknown, &b"GET / HTTP/1.1\r\n\r\n"[..], Spoken::Http1),
        (Protocol::Unknown, b"hello", Spoken::Bytes),
        (Protocol::Http2, b"GET", Spoken::Http1),
        (Protocol::Http11, PREFACE, Spoken::Http2),
    ] {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(sent).await.unwrap();
        let heard = hear(&mut server, declared, PATIENCE).await.unwrap();
        assert!(heard.spoken == expected && !heard.silent);
        drop(client);
        let mut read = Vec::new();
        let mut stream = crate::bytes::PutBack::new(heard.read, server);
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, sent);
    }
}
