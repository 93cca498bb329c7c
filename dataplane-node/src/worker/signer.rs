//! Certificates through the supervisor: a worker names one of its pods, and the supervisor fixes the
//! identity. A worker cannot name an identity.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use trefoil_api::Identity;
use trefoil_api::proto::trefoil::worker::{Sign, Signed, from_worker};
use trefoil_dataplane_state::certificates::{SignError, Signer};

use super::channel::Outbox;

/// How long an answer may take: the supervisor's own limit and something.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the supervisor.
pub(super) struct ChannelSigner {
    outbox: Outbox,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Vec<String>, SignError>>>,
    /// Kubernetes uids of the pods served, and who they are.
    pods: BTreeMap<String, Identity>,
}

impl ChannelSigner {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            state: Mutex::default(),
        }
    }

    /// A pod is served: certificates can be had for its identity.
    pub(super) fn add(&self, uid: &str, identity: Identity) {
        self.lock().pods.insert(uid.into(), identity);
    }

    /// A pod is served no more.
    pub(super) fn remove(&self, uid: &str) {
        self.lock().pods.remove(uid);
    }

    /// Whether a pod served here has this identity.
    pub(super) fn serves(&self, identity: &Identity) -> bool {
        self.lock().pods.values().any(|other| other == identity)
    }

    /// The supervisor's answer.
    pub(super) fn signed(&self, signed: Signed) {
        let waiting = self.lock().waiting.remove(&signed.request);
        let Some(waiting) = waiting else {
            return;
        };
        let _ = waiting.send(if signed.error.is_empty() {
            Ok(signed.cert_chain)
        } else {
            Err(understood(&signed.error))
        });
    }

    async fn ask(&self, identity: Identity, csr: String) -> Result<Vec<String>, SignError> {
        let (answer, answered) = oneshot::channel();
        let (request, pod_uid) = {
            let mut state = self.lock();
            let mut pods = state.pods.iter();
            let pod = pods
                .find(|(_, other)| **other == identity)
                .map(|(uid, _)| uid.clone());
            let pod = pod.ok_or_else(|| SignError::Refused(format!("no pod here is {identity}")))?;
            state.last += 1;
            let request = state.last;
            state.waiting.insert(request, answer);
            (request, pod)
        };
        let sign = Sign {
            request,
            pod_uid,
            csr,
        };
        self.outbox.send(from_worker::Payload::Sign(sign));
        let result = tokio::time::timeout(PATIENCE, answered).await;
        self.lock().waiting.remove(&request);
        match result {
            Ok(Ok(result)) => result,
            _ => Err(SignError::Unreachable("the supervisor does not answer".into())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervisor passes on the words of the same error type.
fn understood(error: &str) -> SignError {
    let unreachable = SignError::Unreachable(String::new()).to_string();
    let refused = SignError::Refused(String::new()).to_string();
    match error.strip_prefix(unreachable.as_str()) {
        Some(reason) => SignError::Unreachable(reason.into()),
        None => SignError::Refused(error.strip_prefix(refused.as_str()).unwrap_or(error).into()),
    }
}

impl Signer for ChannelSigner {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        Box::pin(self.ask(identity.clone(), csr))
    }
}
