//! Withdrawals that are waited for, and which replicas of the control plane have not yet said that their clients
//! know. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::sync::oneshot;

use super::Withdrawal;

/// See the module. By uid of the pod.
#[derive(Default)]
pub(super) struct Withdrawals(BTreeMap<String, Waiting>);

struct Waiting {
    /// Replicas that were told and have not answered.
    owing: BTreeSet<SocketAddr>,
    answers: usize,
    /// Peers that had not answered a replica.
    unanswered: BTreeSet<String>,
    /// Ends the wait.
    done: Option<oneshot::Sender<()>>,
}

impl Withdrawals {
    /// Begins to wait for the replicas that are connected now. Without any, the first that comes will do: whoever
    /// asks another one hears of the withdrawal as it connects.
    pub(super) fn begin(&mut self, uid: &str, owing: BTreeSet<SocketAddr>) -> oneshot::Receiver<()> {
        let (done, over) = oneshot::channel();
        let waiting = Waiting {
            owing,
            answers: 0,
            unanswered: BTreeSet::new(),
            done: Some(done),
        };
        self.0.insert(uid.to_owned(), waiting);
        over
    }

    /// A replica says which of its clients do not know yet.
    pub(super) fn answered(&mut self, uid: &str, replica: SocketAddr, unanswered: Vec<String>) {
        let Some(waiting) = self.0.get_mut(uid) else {
            return;
        };
        waiting.owing.remove(&replica);
        waiting.answers += 1;
        waiting.unanswered.extend(unanswered);
        if waiting.owing.is_empty() {
            // Ends the wait by being dropped.
            waiting.done = None;
        }
    }

    /// The wait is over: what came of it.
    pub(super) fn end(&mut self, uid: &str) -> Withdrawal {
        match self.0.remove(uid) {
            Some(waiting) if waiting.answers > 0 => {
                let replicas = waiting.owing.iter();
                let silent = replicas.map(|replica| format!("the control plane at {replica}"));
                let unanswered: Vec<String> = waiting.unanswered.into_iter().chain(silent).collect();
                if unanswered.is_empty() {
                    Withdrawal::Acknowledged
                } else {
                    Withdrawal::Unanswered(unanswered)
                }
            }
            _ => Withdrawal::ControlPlaneAway,
        }
    }
}
