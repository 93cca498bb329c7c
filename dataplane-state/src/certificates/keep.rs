//! The task that keeps one identity's certificate fresh, and what survives the process: export and import.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use trefoil_api::Identity;

use super::issued::Request;
use super::{Certificates, Issued, IssuedError, Kept, SignError, State};
use crate::state::InForce;

/// How certificates are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a connection waits for a certificate that is on its way.
    pub patience: Duration,
    /// The first pause after a failure; doubled by each further one.
    pub retry_first: Duration,
    /// The longest pause after failures.
    pub retry_last: Duration,
    /// Over how long renewals are spread once the authority is another: all of a mesh have to.
    pub spread: Duration,
    /// The clock.
    pub clock: fn() -> SystemTime,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(5),
            retry_first: Duration::from_millis(250),
            retry_last: Duration::from_secs(30),
            spread: Duration::from_secs(30),
            clock: SystemTime::now,
        }
    }
}

impl Settings {
    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// The pause after so many failures in a row, with jitter: the half of it to all of it.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.retry_first.saturating_mul(1 << failures.min(16));
        doubled
            .min(self.retry_last)
            .mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Why exported keys were not taken.
#[derive(Debug, thiserror::Error)]
#[error("exported keys cannot be read: {0}")]
pub struct ImportError(#[from] serde_json::Error);

/// One identity's key and chain, as exported.
#[derive(Serialize, Deserialize)]
struct Exported {
    identity: String,
    key: String,
    chain: Vec<String>,
}

impl Certificates {
    /// All keys and chains, for this process's successor. It is secret.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let exported: Vec<Exported> = self
            .lock()
            .iter()
            .filter_map(|(identity, kept)| {
                let issued = kept.state.borrow().issued.clone()?;
                Some(Exported {
                    identity: identity.to_string(),
                    key: issued.key_pem.clone(),
                    chain: issued.chain_pem.clone(),
                })
            })
            .collect();
        // Strings and lists of strings cannot fail to serialize.
        serde_json::to_vec(&exported).unwrap_or_default()
    }

    /// Takes what a predecessor exported; what is unusable or expired by now is left out. Returns how many
    /// are used.
    pub fn import(self: &Arc<Self>, exported: &[u8]) -> Result<usize, ImportError> {
        let exported: Vec<Exported> = serde_json::from_slice(exported)?;
        let mut used = 0;
        for one in exported {
            let Ok(identity) = one.identity.parse::<Identity>() else {
                continue;
            };
            let now = self.settings.now();
            match Issued::new(&identity, one.key, one.chain, now) {
                Ok(issued) if issued.valid_at(now) => {
                    let kept = self.keep(&identity, Some(Arc::new(issued)));
                    self.lock().insert(identity, kept);
                    used += 1;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%identity, %error, "a predecessor's certificate is not used"),
            }
        }
        Ok(used)
    }

    /// Starts keeping a certificate.
    pub(super) fn keep(self: &Arc<Self>, identity: &Identity, issued: Option<Arc<Issued>>) -> Kept {
        let (sender, state) = watch::channel(State {
            issued,
            failure: None,
        });
        let task = tokio::spawn(refresh(Arc::downgrade(self), identity.clone(), sender));
        Kept {
            state,
            task: task.abort_handle(),
        }
    }

    async fn fetch(&self, identity: &Identity) -> Result<Issued, FetchError> {
        let request = Request::new(identity)?;
        let chain = self.signer.sign(identity, request.csr_pem).await?;
        let now = self.settings.now();
        let issued = Issued::new(identity, request.key_pem, chain, now)?;
        if !issued.valid_at(now) {
            return Err(IssuedError::Answer("a certificate that has expired".into()).into());
        }
        Ok(issued)
    }
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Unusable(#[from] IssuedError),
}

/// Fetches, waits until another is due, fetches again; until nobody needs it.
async fn refresh(certificates: Weak<Certificates>, identity: Identity, state: watch::Sender<State>) {
    let mut failures = 0;
    let mut held = state.borrow().issued.clone();
    loop {
        if let Some(held) = held.take() {
            until_due(&certificates, &held).await;
        }
        let Some(owner) = certificates.upgrade() else {
            return;
        };
        let fetched = owner.fetch(&identity).await;
        owner.metrics.fetched(&fetched);
        match fetched {
            Ok(issued) => {
                failures = 0;
                tracing::info!(%identity, "certificate issued");
                let issued = Arc::new(issued);
                held = Some(issued.clone());
                state.send_modify(|state| {
                    *state = State {
                        issued: Some(issued),
                        failure: None,
                    };
                });
                owner.changes.send_modify(|count| *count += 1);
            }
            Err(failure) => {
                let failure = failure.to_string();
                tracing::warn!(%identity, failure, "no certificate was issued");
                state.send_modify(|state| state.failure = Some(failure));
                let pause = owner.settings.pause(failures);
                failures += 1;
                drop(owner);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Waits until what is held is to be renewed: at half its life, or because the authority is another.
async fn until_due(certificates: &Weak<Certificates>, held: &Issued) {
    let Some((mut authority, spread)) = certificates
        .upgrade()
        .map(|owner| (owner.authority.subscribe(), owner.settings.spread))
    else {
        return;
    };
    let turn = spread.mul_f64(rand::rng().random_range(0.0..=1.0));
    let replaced = async {
        let other = |known: &Option<InForce>| known.as_ref().is_some_and(|known| !held.is_of(known));
        if authority.wait_for(other).await.is_err() {
            // With the certificates, which the other sees.
            return std::future::pending().await;
        }
        tokio::time::sleep(turn).await;
    };
    tokio::select! {
        () = wait_until(certificates, held.renew_at()) => {}
        () = replaced => {}
    }
}

/// Waits in steps, because the wall clock may be set and a suspended machine's timers stand still.
async fn wait_until(certificates: &Weak<Certificates>, due: SystemTime) {
    const STEP: Duration = Duration::from_secs(60);
    loop {
        let Some(owner) = certificates.upgrade() else {
            return;
        };
        let left = due.duration_since(owner.settings.now()).unwrap_or_default();
        drop(owner);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STEP)).await;
    }
}
