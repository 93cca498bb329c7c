//! Notices a tunnel whose other end is gone without a word: a PING every ten seconds.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, sleep_until, timeout};

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(20);

/// Resolves once the other end has left a PING unanswered.
pub(super) async fn until_silent(ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else {
        return std::future::pending().await;
    };
    loop {
        sleep_until(Instant::now() + INTERVAL).await;
        // An error is the tunnel's end, which whoever drives the tunnel sees too.
        if !matches!(timeout(TIMEOUT, ping_pong.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
