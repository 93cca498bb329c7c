use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Departure, Presence};

/// Whether the departure led to forgetting, which is done exactly then.
async fn forgotten(presence: &Presence, departure: Departure) -> bool {
    let calls = AtomicUsize::new(0);
    let forget = async {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    let forgotten = presence.forget_unless_back(departure, forget).await;
    assert_eq!(calls.into_inner(), usize::from(forgotten));
    forgotten
}

#[tokio::test]
async fn what_an_agent_said_is_forgotten_once_it_stayed_away() {
    let presence = Presence::new(Duration::from_millis(20));
    presence.arrived("n1").await;
    let departure = presence.left("n1").await;
    let since = std::time::Instant::now();
    assert!(forgotten(&presence, departure).await);
    assert!(since.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn an_agent_that_came_back_or_has_another_stream_is_not_forgotten() {
    let presence = Presence::new(Duration::ZERO);
    presence.arrived("n1").await;
    let first = presence.left("n1").await;
    presence.arrived("n1").await;
    assert!(!forgotten(&presence, first).await, "came back");
    presence.arrived("n1").await;
    presence.arrived("n2").await;
    let one_of_two = presence.left("n1").await;
    assert!(!forgotten(&presence, one_of_two).await, "has another stream");
    let last = presence.left("n1").await;
    let other = presence.left("n2").await;
    assert!(forgotten(&presence, last).await && forgotten(&presence, other).await);
}

#[tokio::test]
async fn time_away_counts_from_the_last_stream() {
    let presence = Presence::new(Duration::ZERO);
    presence.arrived("n1").await;
    let first = presence.left("n1").await;
    presence.arrived("n1").await;
    let last = presence.left("n1").await;
    assert!(!forgotten(&presence, first).await);
    assert!(forgotten(&presence, last).await);
}
