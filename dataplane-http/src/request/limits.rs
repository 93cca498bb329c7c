//! Until when a request must have been answered, to its end: what its caller says, what its rule says, whichever is
//! sooner.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Asked;

/// Until when, and what it is then that has run out.
pub(super) type Limit = (Instant, &'static str);

/// The limit of all attempts of a request that began at `began`.
pub(super) fn of_request(asked: &Asked, began: Instant) -> Option<Limit> {
    let rule = asked.rule.as_ref().and_then(|rule| rule.request_timeout);
    sooner(
        after(began, rule, "the route's limit for the request"),
        after(began, asked.timeout, "the caller's grpc-timeout"),
    )
}

/// The limit of an attempt that begins now, of a request with the limit `whole`.
pub(super) fn of_attempt(asked: &Asked, whole: Option<Limit>) -> Option<Limit> {
    let rule = asked.rule.as_ref().and_then(|rule| rule.attempt_timeout);
    let attempt = after(Instant::now(), rule, "the route's limit for an attempt");
    sooner(whole, attempt)
}

/// Beyond what a clock can say there is no limit.
fn after(began: Instant, limit: Option<Duration>, what: &'static str) -> Option<Limit> {
    Some((began.checked_add(limit?)?, what))
}

fn sooner(one: Option<Limit>, other: Option<Limit>) -> Option<Limit> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.0 < one.0 { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// What `work` comes to, or what has run out before.
pub(super) async fn within<T>(
    limit: Option<Limit>,
    work: impl Future<Output = T>,
) -> Result<T, &'static str> {
    match limit {
        None => Ok(work.await),
        Some((until, what)) => timeout_at(until, work).await.map_err(|_| what),
    }
}
