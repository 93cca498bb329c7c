//! Which nodes' agents are connected, and which stayed away for so long that what they said is to be
//! forgotten: an agent that speaks to another control plane by now would be contradicted for ever. Never
//! forgets what a connected agent said.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub struct Presence {
    absence: Duration,
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Default)]
struct Nodes {
    /// Arrivals and departures of all nodes.
    events: u64,
    /// Open streams, and the latest event.
    streams: BTreeMap<String, (usize, u64)>,
}

/// A stream that ended.
#[derive(Debug)]
pub(super) struct Departure {
    node: String,
    event: u64,
}

impl Presence {
    /// Agents may be away for this long.
    #[must_use]
    pub fn new(absence: Duration) -> Self {
        Self {
            absence,
            nodes: Mutex::default(),
        }
    }

    /// A stream of a node's agent begins.
    pub(super) async fn arrived(&self, node: &str) {
        self.nodes.lock().await.note(node, |open| open + 1);
    }

    /// A stream of a node's agent ended.
    pub(super) async fn left(&self, node: &str) -> Departure {
        let event = self.nodes.lock().await.note(node, |open| open.saturating_sub(1));
        Departure {
            node: node.to_owned(),
            event,
        }
    }

    /// Waits, and forgets by `forget` unless a stream of the node's agent was open meanwhile. One that begins
    /// during that begins after it. Whether it was forgotten.
    pub(super) async fn forget_unless_back(
        &self,
        departure: Departure,
        forget: impl Future<Output = ()>,
    ) -> bool {
        tokio::time::sleep(self.absence).await;
        let mut nodes = self.nodes.lock().await;
        if nodes.streams.get(&departure.node) != Some(&(0, departure.event)) {
            return false;
        }
        forget.await;
        nodes.streams.remove(&departure.node);
        true
    }
}

impl Nodes {
    fn note(&mut self, node: &str, count: impl FnOnce(usize) -> usize) -> u64 {
        self.events += 1;
        let stream = self.streams.entry(node.to_owned()).or_default();
        *stream = (count(stream.0), self.events);
        self.events
    }
}
