use std::time::Duration;

use futures::FutureExt;

use super::{READ, ROOM, Sending, Turns};

/// Far more than it takes to give a place back.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn what_is_large_is_sent_one_after_the_other() {
    let turns = Turns::default();
    let (mut one, mut other) = (Sending::default(), Sending::default());
    for sending in [&mut one, &mut other] {
        assert!(sending.comes().now_or_never().is_none(), "nothing is wanted");
        // More than there is room for: then alone.
        sending.want(&turns, ROOM << 11);
    }
    one.comes().await;
    assert!(
        other.comes().now_or_never().is_none(),
        "the other's turn is not over"
    );
    assert!(one.end() && !one.end());
    let comes = tokio::time::timeout(SOON, other.comes()).await;
    comes.expect("before the other's turn would have ended by itself");
}

#[tokio::test]
async fn a_turn_that_is_not_used_ends_by_itself() {
    let turns = Turns::default();
    let mut taken = Vec::new();
    for _ in 0..READ {
        taken.push(turns.to_be_read().await);
    }
    assert!(turns.to_be_read().now_or_never().is_none());
    let comes = tokio::time::timeout(super::READING * 2, turns.to_be_read()).await;
    comes.expect("a place for the next, though nobody gave one back");
}
