//! Keys and certificates of the identities that this process may act as: keys are made here and leave it only
//! by [`Certificates::export`]; certificates are fetched ahead of need, one fetch for an identity at a time,
//! and renewed at half their life. An old one serves until it expires, never longer.

mod authority;
mod issued;
mod keep;
mod metrics;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use trefoil_api::Identity;

use crate::state::{InForce, Store};
use crate::tls::TlsError;

pub use authority::{Authority, Scope as AuthorityScope};
pub use issued::{Issued, IssuedError, Summary};
pub use keep::{ImportError, Settings};

/// Signs certificate requests: the control plane, or the supervisor that asks it.
pub trait Signer: Send + Sync + 'static {
    /// Has a request (PEM) signed for an identity: the leaf, intermediates, last the roots, each PEM.
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>>;
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The signer could not be reached.
    #[error("certificate authority: not reachable: {0}")]
    Unreachable(String),
    /// The signer refused.
    #[error("certificate authority: refused: {0}")]
    Refused(String),
}

/// Why there is no TLS configuration.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CertificateError {
    /// None was ever issued.
    #[error("no certificate for {identity}: {reason}")]
    None {
        /// For whom.
        identity: Identity,
        /// What went wrong last.
        reason: String,
    },
    /// The one that was is no longer valid, and no other was issued.
    #[error("the certificate of {identity} has expired: {reason}")]
    Expired {
        /// For whom.
        identity: Identity,
        /// What went wrong last.
        reason: String,
    },
    /// It cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Certificates of this process's identities.
pub struct Certificates {
    signer: Arc<dyn Signer>,
    settings: Settings,
    kept: Mutex<HashMap<Identity, Kept>>,
    /// Ticks whenever a certificate was issued or forgotten: what was exported is out of date.
    changes: watch::Sender<u64>,
    /// What is signed with now, where that is known.
    authority: watch::Sender<Option<InForce>>,
    metrics: metrics::Metrics,
}

/// One identity's.
struct Kept {
    state: watch::Receiver<State>,
    task: AbortHandle,
}

/// What there is for one identity.
#[derive(Clone, Default)]
struct State {
    issued: Option<Arc<Issued>>,
    /// What went wrong since.
    failure: Option<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Certificates {
    /// No certificates yet; `signer` is asked when one is needed.
    #[must_use]
    pub fn new(signer: Arc<dyn Signer>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            signer,
            settings,
            kept: Mutex::default(),
            changes: watch::Sender::default(),
            authority: watch::Sender::default(),
            metrics: metrics::Metrics::default(),
        })
    }

    /// Registers what fetching counts.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// To accept connections as `identity`. Waits a while where a certificate is on its way.
    pub async fn server_config(
        self: &Arc<Self>,
        identity: &Identity,
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        Ok(self.issued(identity).await?.server_config())
    }

    /// To connect as `identity` to a server that must be one of `expected`.
    pub async fn client_config(
        self: &Arc<Self>,
        identity: &Identity,
        expected: &[Identity],
    ) -> Result<Arc<ClientConfig>, CertificateError> {
        Ok(Arc::new(self.issued(identity).await?.client_config(expected)?))
    }

    /// Has a certificate fetched, and kept fresh from now on.
    pub fn fetch_ahead(self: &Arc<Self>, identity: &Identity) {
        let _ = self.state_of(identity);
    }

    /// Has what is of another authority than `store` says is in force renewed soon, from now on.
    pub fn follow_authority(self: &Arc<Self>, store: &Store) {
        let (certificates, store) = (Arc::downgrade(self), store.clone());
        tokio::spawn(async move {
            let mut changes = store.changes();
            while let Some(certificates) = certificates.upgrade() {
                let snapshot = store.snapshot();
                let said = snapshot
                    .settings()
                    .and_then(|settings| settings.authority.as_ref());
                // Who says nothing any more has not changed it.
                if let Some(said) = said {
                    certificates.authority.send_if_modified(|known| {
                        let differs = known.as_ref() != Some(said);
                        if differs {
                            *known = Some(said.clone());
                        }
                        differs
                    });
                }
                drop((certificates, snapshot));
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Drops the key and certificate of an identity.
    pub fn forget(&self, identity: &Identity) {
        if self.lock().remove(identity).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether there is a valid certificate for an identity now.
    #[must_use]
    pub fn has(&self, identity: &Identity) -> bool {
        let now = self.settings.now();
        let kept = self.lock();
        let valid = |kept: &Kept| matches!(&kept.state.borrow().issued, Some(issued) if issued.valid_at(now));
        kept.get(identity).is_some_and(valid)
    }

    /// Ticks whenever a certificate was issued or forgotten.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What there is, for the admin interface: no keys.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        let now = self.settings.now();
        let mut summaries: Vec<Summary> = self
            .lock()
            .iter()
            .map(|(identity, kept)| {
                let state = kept.state.borrow();
                Summary::new(identity, state.issued.as_deref(), state.failure.as_deref(), now)
            })
            .collect();
        summaries.sort_by(|a, b| a.identity.cmp(&b.identity));
        summaries
    }

    async fn issued(self: &Arc<Self>, identity: &Identity) -> Result<Arc<Issued>, CertificateError> {
        let mut state = self.state_of(identity);
        let usable = |state: &State| {
            let now = self.settings.now();
            state.issued.clone().filter(|issued| issued.valid_at(now))
        };
        if let Some(issued) = usable(&state.borrow()) {
            return Ok(issued);
        }
        let waited = state.wait_for(|state| usable(state).is_some());
        if let Ok(Ok(state)) = tokio::time::timeout(self.settings.patience, waited).await
            && let Some(issued) = usable(&state)
        {
            return Ok(issued);
        }
        let state = state.borrow();
        let reason = state.failure.clone();
        let reason = reason.unwrap_or_else(|| "the certificate authority has not answered yet".into());
        let identity = identity.clone();
        Err(match state.issued {
            Some(_) => CertificateError::Expired { identity, reason },
            None => CertificateError::None { identity, reason },
        })
    }

    fn state_of(self: &Arc<Self>, identity: &Identity) -> watch::Receiver<State> {
        let mut kept = self.lock();
        if let Some(kept) = kept.get(identity) {
            return kept.state.clone();
        }
        let new = self.keep(identity, None);
        let state = new.state.clone();
        kept.insert(identity.clone(), new);
        state
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment after `from` at which half of the time until `to` has passed.
fn halfway(from: SystemTime, to: SystemTime) -> SystemTime {
    from + to.duration_since(from).unwrap_or(Duration::ZERO) / 2
}
