//! Keys and certificates of the identities that this process may act as.

use std::sync::Arc;

use futures::future::BoxFuture;
use trefoil_api::Identity;

/// Signs certificate requests: the control plane, or the supervisor that asks it.
pub trait Signer: Send + Sync + 'static {
    /// Has a request (PEM) signed for an identity: the leaf, intermediates, last the roots, each PEM.
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>>;
}

/// Why nothing was signed.
#[derive(Clone, Debug, thiserror::Error)]
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
}

/// Certificates of this process's identities.
pub struct Certificates {
    #[allow(dead_code)]
    signer: Arc<dyn Signer>,
}

#[allow(missing_docs, unused_variables, clippy::unused_async, clippy::todo)]
impl Certificates {
    pub fn new(signer: Arc<dyn Signer>) -> Arc<Self> {
        Arc::new(Self { signer })
    }
    pub async fn server_config(
        &self,
        identity: &Identity,
    ) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
        todo!()
    }
    pub async fn client_config(
        &self,
        identity: &Identity,
        expected: &[Identity],
    ) -> Result<Arc<rustls::ClientConfig>, CertificateError> {
        todo!()
    }
    pub fn fetch_ahead(&self, identity: &Identity) {
        todo!()
    }
    pub fn forget(&self, identity: &Identity) {
        todo!()
    }
}
