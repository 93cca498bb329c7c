//! What a connection speaks, by what its port is declared to speak or else by its first bytes. Where nothing is
//! declared, the client is given [`PATIENCE`] to begin: a protocol in which the server speaks first waits for no
//! longer than that, and its bytes pass as they are.

use std::io;
use std::time::Duration;

use ::bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};
use trefoil_dataplane_state::state::Protocol;

#[cfg(test)]
mod tests;

/// How long the client of a port that declares nothing may take to say what it speaks.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// How long one may that must speak HTTP.
const HTTP_PATIENCE: Duration = Duration::from_secs(30);
/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest request line that is recognised on a port that declares nothing.
const LINE: usize = 8 * 1024;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, without an upgrade.
    Http2,
    /// Something else, or nothing yet.
    Bytes,
}

/// What the beginning of a connection says; none while it may still be more than one thing.
#[must_use]
pub fn recognise(beginning: &[u8]) -> Option<Spoken> {
    if beginning.starts_with(PREFACE) {
        return Some(Spoken::Http2);
    }
    if PREFACE.starts_with(beginning) {
        return None;
    }
    let line = match beginning.iter().position(|byte| *byte == b'\n') {
        Some(end) => &beginning[..end],
        None if beginning.len() > LINE => return Some(Spoken::Bytes),
        // What ends with a CR may go on with the LF of the line's end.
        None => {
            let line = beginning.strip_suffix(b"\r").unwrap_or(beginning);
            return (!may_begin_line(line)).then_some(Spoken::Bytes);
        }
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_http = may_begin_line(line) && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"));
    Some(if is_http { Spoken::Http1 } else { Spoken::Bytes })
}

/// `METHOD SP TARGET`, as far as it goes. Methods are in capitals: what is not is as likely of another protocol.
fn may_begin_line(line: &[u8]) -> bool {
    let method = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (method, rest) = line.split_at(method);
    let capital = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-' || *byte == b'_';
    let target = rest
        .get(1)
        .is_none_or(|byte| matches!(byte, b'/' | b'*' | b'h' | b'H'));
    let target = target || (method == b"CONNECT" && rest.get(1).is_some());
    let printable = |byte: &u8| *byte >= b' ' && *byte != 0x7f;
    method.len() <= 32
        && (rest.is_empty() || !method.is_empty())
        && method.iter().all(capital)
        && target
        && rest.iter().all(printable)
}

/// What was heard of a connection.
#[derive(Debug)]
pub struct Heard {
    /// What it speaks.
    pub spoken: Spoken,
    /// What was read to find out.
    pub read: Bytes,
    /// Nothing is declared, and the client was waited for in vain.
    pub silent: bool,
}

/// Finds out what `stream` speaks, where its port declares `declared`. Where that is nothing, the client has `patience`
/// to begin.
pub async fn hear<T: AsyncRead + Unpin>(
    stream: &mut T,
    declared: Protocol,
    patience: Duration,
) -> io::Result<Heard> {
    let (patience, otherwise) = match declared {
        Protocol::Tcp | Protocol::Tls => (Duration::ZERO, Spoken::Bytes),
        Protocol::Unknown => (patience, Spoken::Bytes),
        Protocol::Http11 | Protocol::Http2 | Protocol::Grpc => (HTTP_PATIENCE, Spoken::Http1),
    };
    let mut heard = Heard {
        spoken: otherwise,
        read: Bytes::new(),
        silent: false,
    };
    if patience.is_zero() {
        return Ok(heard);
    }
    let until = Instant::now() + patience;
    let mut read = BytesMut::with_capacity(1024);
    heard.spoken = loop {
        match timeout_at(until, stream.read_buf(&mut read)).await {
            Ok(count) => {
                if count? == 0 {
                    break otherwise;
                }
            }
            Err(_) => {
                heard.silent = declared == Protocol::Unknown && read.is_empty();
                break otherwise;
            }
        }
        match recognise(&read) {
            // What must be HTTP is answered as HTTP, whatever it is.
            Some(Spoken::Bytes) => break otherwise,
            Some(spoken) => break spoken,
            None if otherwise == Spoken::Http1 && !PREFACE.starts_with(&read) => break otherwise,
            None => {}
        }
    };
    heard.read = read.freeze();
    Ok(heard)
}
