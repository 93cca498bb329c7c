//! What a side does to which nothing is said: how a connection is tried without a byte being sent.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use super::{Broken, Reader, Side, Writer, tcp};

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It spoke.
    Speech,
    /// It ended.
    End,
    /// Neither, for as long as was waited.
    Silence,
}

/// Says nothing for as long as `patience`, then that nothing follows, and gives the side an orderly end.
pub async fn listen(side: &mut Side, patience: Duration) -> Result<Heard, Broken> {
    match side {
        Side::Tcp(stream) => of(tcp::halves(stream), patience).await,
        Side::Tunnel(stream) => of(stream.halves(), patience).await,
    }
}

async fn of((mut from, mut to): (impl Reader, impl Writer), patience: Duration) -> Result<Heard, Broken> {
    let first = timeout(patience, poll_fn(|cx| from.poll_read(cx))).await;
    let heard = match first {
        Err(_) => Heard::Silence,
        Ok(Ok(None)) => Heard::End,
        Ok(Ok(Some(bytes))) => {
            from.taken(bytes.len())?;
            Heard::Speech
        }
        Ok(Err(broken)) => return Err(broken),
    };
    // The connection is known by now: that it has broken meanwhile says nothing more.
    if to.finish().is_ok() && heard != Heard::End {
        let _ = timeout(patience, poll_fn(|cx| from.poll_read(cx))).await;
    }
    Ok(heard)
}
