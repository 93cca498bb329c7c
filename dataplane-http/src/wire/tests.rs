use proptest::prelude::*;

use super::*;

fn scan(bytes: &[u8]) -> Result<At, Ambiguous> {
    let mut scanner = Scanner::default();
    scanner.scan(bytes)?;
    Ok(scanner.at)
}

#[test]
fn requests_are_followed_to_their_ends() {
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nT: 1\r\n\r\n";
    let of_length = "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\na\nb";
    let all = format!("\r\n{chunked}{of_length}{chunked}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut scanner = Scanner::default();
    scanner.scan(all.as_bytes()).unwrap();
    assert_eq!((scanner.at, scanner.heads), (At::Head, 4));
    assert_eq!(
        scan(&of_length.as_bytes()[..of_length.len() - 1]),
        Ok(At::Data(1, Then::Head))
    );
}

#[test]
fn a_second_request_is_looked_at_like_the_first() {
    let first = "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\na\nb";
    let second = format!("{first}GET / HTTP/1.1\r\nHost: a\n\r\n");
    assert_eq!(scan(second.as_bytes()), Err(Ambiguous::BareLineFeed));
}

#[test]
fn what_can_be_read_in_two_ways_is_named() {
    for (request, ambiguous) in [
        ("GET / HTTP/1.1\n", Ambiguous::BareLineFeed),
        ("GET / HTTP/1.1\r\nA: b\rC: d\r\n", Ambiguous::BareCarriageReturn),
        ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n", Ambiguous::Folded),
        (
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            Ambiguous::SeveralLengths,
        ),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            Ambiguous::LengthAndEncoding,
        ),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            Ambiguous::ChunkSize,
        ),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            Ambiguous::ChunkSize,
        ),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            Ambiguous::ChunkSize,
        ),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n",
            Ambiguous::BareLineFeed,
        ),
    ] {
        assert_eq!(scan(request.as_bytes()), Err(ambiguous), "{request:?}");
    }
}

#[test]
fn the_answer_is_as_long_as_it_says() {
    let text = std::str::from_utf8(guarded::ANSWER).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{}",
        body.len()
    );
}

proptest! {
    /// How the bytes arrive changes nothing.
    #[test]
    fn pieces_are_as_good_as_the_whole(
        bytes in "(GET / HTTP/1.1\r\n((A|Content-Length|Transfer-Encoding): [0-2c]{1,2}\r?\n){0,3}\r\n[0-3]?\r\n){1,3}",
        at in any::<prop::sample::Index>(),
    ) {
        let (one, other) = bytes.as_bytes().split_at(at.index(bytes.len()));
        let mut scanner = Scanner::default();
        let pieces = scanner.scan(one).and_then(|()| scanner.scan(other)).map(|()| scanner.at);
        prop_assert_eq!(pieces, scan(bytes.as_bytes()));
    }
}
