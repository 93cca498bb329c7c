//! Bytes both ways with checksums, and the ways in which a connection can be used badly: half-closed,
//! reset, read slowly, written slowly, left idle. The client says how much it wants, sends until it closes
//! its half, and is then told the checksum of what arrived.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const CHUNK: usize = 64 * 1024;
const CHECKSUM: usize = 32;

/// How the client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// As fast as it goes.
    Plain,
    /// Closes its half before it reads anything.
    HalfClose,
    /// Reads a little at a time, with pauses.
    SlowReader,
    /// Writes a little at a time, with pauses.
    SlowWriter,
}

/// What was transferred, checksums compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes sent.
    pub up: u64,
    /// Bytes received.
    pub down: u64,
    /// How long it took.
    pub milliseconds: u64,
}

/// The server's side of one transfer.
pub async fn answer(stream: TcpStream) -> anyhow::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let wanted = read.read_u64().await?;
    let (received, sent) = tokio::join!(drain(&mut read, None), fill(&mut write, wanted, None));
    sent?;
    write.write_all(&received?.1).await?;
    write.shutdown().await?;
    Ok(())
}

/// Transfers `up` bytes there and `down` bytes back, and compares both checksums.
pub async fn transfer(
    target: SocketAddr,
    behaviour: Behaviour,
    up: u64,
    down: u64,
) -> anyhow::Result<Transfer> {
    let begun = Instant::now();
    let stream = TcpStream::connect(target).await.context("connecting")?;
    let (mut read, mut write) = stream.into_split();
    let pause = Some(Duration::from_millis(5));
    write.write_u64(down).await?;
    let upload = async {
        let sum = fill(
            &mut write,
            up,
            pause.filter(|_| behaviour == Behaviour::SlowWriter),
        )
        .await?;
        write.shutdown().await.context("closing our half")?;
        anyhow::Ok(sum)
    };
    let read_pause = pause.filter(|_| behaviour == Behaviour::SlowReader);
    let (sent, received) = if behaviour == Behaviour::HalfClose {
        let sent = upload.await?;
        (sent, download(&mut read, down, read_pause).await?)
    } else {
        tokio::try_join!(upload, download(&mut read, down, read_pause))?
    };
    ensure!(
        received.as_slice() == sent.as_slice(),
        "the server received other bytes than were sent"
    );
    ensure!(read.read(&mut [0]).await? == 0, "more came than was asked for");
    let milliseconds = u64::try_from(begun.elapsed().as_millis())?;
    Ok(Transfer {
        up,
        down,
        milliseconds,
    })
}

/// Sends something and then resets the connection instead of closing it.
pub async fn reset(target: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(target).await.context("connecting")?;
    stream.write_u64(1 << 20).await?;
    stream.read_u8().await.context("waiting for the first byte")?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

/// Reads `down` bytes, checks them, and returns the checksum that follows.
async fn download(
    read: &mut (impl AsyncRead + Unpin),
    down: u64,
    pause: Option<Duration>,
) -> anyhow::Result<[u8; CHECKSUM]> {
    let (length, checksum) = drain(&mut (&mut *read).take(down), pause).await?;
    ensure!(length == down, "{length} of {down} bytes came");
    let expected = fill(&mut tokio::io::sink(), down, None).await?;
    ensure!(checksum == expected, "other bytes came than were sent");
    let mut told = [0; CHECKSUM];
    read.read_exact(&mut told)
        .await
        .context("reading the server's checksum")?;
    Ok(told)
}

/// Reads to the end; the length and the checksum.
async fn drain(
    read: &mut (impl AsyncRead + Unpin),
    pause: Option<Duration>,
) -> anyhow::Result<(u64, [u8; CHECKSUM])> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let count = read.read(&mut buffer).await.context("reading")?;
        if count == 0 {
            return Ok((length, finish(context)?));
        }
        length += u64::try_from(count)?;
        context.update(&buffer[..count]);
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Writes `length` bytes that differ from place to place; their checksum.
async fn fill(
    write: &mut (impl AsyncWrite + Unpin),
    length: u64,
    pause: Option<Duration>,
) -> anyhow::Result<[u8; CHECKSUM]> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut written = 0;
    let mut buffer = vec![0; CHUNK];
    while written < length {
        let count = usize::try_from(length - written).map_or(CHUNK, |left| left.min(CHUNK));
        for (place, word) in (written..).step_by(8).zip(buffer.chunks_exact_mut(8)) {
            word.copy_from_slice(&place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        }
        write.write_all(&buffer[..count]).await.context("writing")?;
        context.update(&buffer[..count]);
        written += u64::try_from(count)?;
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    write.flush().await?;
    finish(context)
}

fn finish(context: digest::Context) -> anyhow::Result<[u8; CHECKSUM]> {
    Ok(context.finish().as_ref().try_into()?)
}

#[cfg(test)]
mod tests;
