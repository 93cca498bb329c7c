//! A Redis client that pipelines, for where no real one can be installed. Knows PING and nothing else.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends this many PINGs before it reads anything, and counts the answers.
pub async fn ping(target: SocketAddr, count: usize) -> anyhow::Result<usize> {
    const ANSWER: &[u8] = b"+PONG\r\n";
    let mut stream = TcpStream::connect(target).await.context("connecting")?;
    stream.write_all(&b"PING\r\n".repeat(count)).await?;
    let mut answers = vec![0; ANSWER.len() * count];
    stream
        .read_exact(&mut answers)
        .await
        .context("reading the answers")?;
    ensure!(
        answers.chunks(ANSWER.len()).all(|answer| answer == ANSWER),
        "something other than PONG"
    );
    Ok(count)
}
