//! How much retries may add to the load, and how long they wait. Pure: a budget is counted in requests, not in
//! time, so that a service that is down is not asked many times over by each of its clients.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What each request adds to a budget, in hundredths of a retry.
const DEPOSIT: u32 = 20;
/// What a retry takes from it.
const RETRY: u32 = 100;
/// What a budget begins with, and holds at most.
const FULL: u32 = 10 * RETRY;
/// The shortest wait, where a route does not say.
const SHORTEST: Duration = Duration::from_millis(25);
/// Waits are doubled so often.
const DOUBLINGS: u32 = 5;

/// What the retries of one rule may add to the load: a fifth of its requests, and ten.
#[derive(Debug)]
pub struct Budget {
    balance: AtomicU32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            balance: AtomicU32::new(FULL),
        }
    }
}

impl Budget {
    /// A request was made.
    pub fn deposit(&self) {
        let add = |balance: u32| (balance < FULL).then(|| (balance + DEPOSIT).min(FULL));
        // An error is a full budget.
        let _ = self
            .balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether a retry may be made; it is counted.
    pub fn withdraw(&self) -> bool {
        let take = |balance: u32| balance.checked_sub(RETRY);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

/// How long to wait before the retry number `retry`, counted from 0: doubled each time, and somewhere between half
/// and all of that by `chance`, which is between 0 and 1.
#[must_use]
pub(crate) fn wait(least: Duration, retry: u32, chance: f64) -> Duration {
    let base = if least.is_zero() { SHORTEST } else { least };
    let longest = base * 2_u32.pow(retry.min(DOUBLINGS));
    let spread = longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    spread.max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_add_a_fifth_at_most_once_the_budget_is_used_up() {
        let budget = Budget::default();
        while budget.withdraw() {}
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.deposit();
            retries += u32::from(budget.withdraw());
        }
        assert_eq!(retries, 200);
    }

    #[test]
    fn a_budget_holds_ten_retries_and_no_more() {
        let budget = Budget::default();
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
    }

    #[test]
    fn waits_grow_and_are_never_shorter_than_asked() {
        let least = Duration::from_millis(10);
        assert_eq!(wait(least, 0, 0.0), least);
        assert_eq!(wait(least, 1, 1.0), Duration::from_millis(20));
        assert_eq!(wait(least, 100, 1.0), Duration::from_millis(320));
        assert_eq!(wait(Duration::ZERO, 0, 1.0), SHORTEST);
    }
}
