//! An HTTP server that breaks the rules: what is asked for says how. Ends every connection with its answer, but for
//! the one that is as it should be.

use std::net::Ipv6Addr;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::port;
use super::serve::accept;

/// What becomes of an answer that breaks a rule, at whoever reads it for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It cannot be understood: nothing of it goes on.
    Refused,
    /// It may be understood all the same (RFC 9112, section 2.2): what goes on is written as it should be, if
    /// anything does.
    Mended,
    /// It breaks off: so does what goes on, if anything does.
    Cut,
}

/// A way to break the rules.
#[derive(Clone, Copy, Debug)]
pub struct Offence {
    /// What is asked for.
    pub path: &'static str,
    /// What becomes of it.
    pub fate: Fate,
    answer: fn() -> String,
}

/// All of them.
pub const OFFENCES: [Offence; 9] = [
    offence("/lengths", Fate::Refused, || {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello, world".into()
    }),
    offence("/lengths-in-one", Fate::Refused, || {
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 7\r\n\r\nhello, world".into()
    }),
    offence("/bare-line-feeds", Fate::Mended, || {
        "HTTP/1.1 200 OK\nContent-Length: 5\nX-Field: value\n\nhello".into()
    }),
    offence("/large-head", Fate::Refused, || {
        let field = "x".repeat(1 << 20);
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Field: {field}\r\n\r\nhello")
    }),
    offence("/other-protocol", Fate::Refused, || {
        "SSH-2.0-OpenSSH_9.2p1\r\n".into()
    }),
    offence("/nothing", Fate::Refused, String::new),
    offence("/half-a-head", Fate::Refused, || {
        "HTTP/1.1 200 OK\r\nContent-Len".into()
    }),
    offence("/short", Fate::Cut, || {
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello".into()
    }),
    offence("/short-of-a-chunk", Fate::Cut, || {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".into()
    }),
];
/// What is answered as it should be.
pub const WELL: &str = "/well";

const fn offence(path: &'static str, fate: Fate, answer: fn() -> String) -> Offence {
    Offence { path, fate, answer }
}

/// Serves until the process ends.
pub async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port::HOSTILE)).await;
    accept(listener.context("listening")?, answer).await;
    Ok(())
}

async fn answer(stream: TcpStream, _: std::net::SocketAddr) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(path) = read_head(&mut stream).await? {
        let Some(offence) = OFFENCES.iter().find(|one| one.path == path) else {
            let well = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(well.as_bytes()).await?;
            continue;
        };
        stream.write_all((offence.answer)().as_bytes()).await?;
        stream.shutdown().await?;
        // What the other end still sends is taken, so that the end is one in order.
        tokio::io::copy(&mut (&mut stream).take(1 << 20), &mut tokio::io::sink()).await?;
        return Ok(());
    }
    Ok(())
}

/// The path that is asked for; none at the connection's end.
async fn read_head(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Option<String>> {
    let mut path = None;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => return Ok(path),
            asked if path.is_none() => path = asked.split(' ').nth(1).map(str::to_owned),
            _ => {}
        }
    }
}
