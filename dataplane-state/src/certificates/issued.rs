//! One key with its chain and the roots that came with it, checked before it is used: the leaf names whom we
//! asked for and nobody else, and its key is ours.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use trefoil_api::Identity;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::halfway;
use crate::tls::{self, TlsError, leaf_identity, provider};

/// A certificate in use.
pub struct Issued {
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    trust_domain: String,
    server: Arc<ServerConfig>,
    not_before: SystemTime,
    not_after: SystemTime,
    renew_at: SystemTime,
    serial: String,
    /// What [`super::Certificates::export`] writes: PKCS#8 PEM, and the chain as it was answered.
    pub(super) key_pem: String,
    pub(super) chain_pem: Vec<String>,
}

/// Why an answer of the certificate authority is not used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssuedError {
    /// A key or request could not be made.
    #[error("making a key: {0}")]
    Key(String),
    /// The answer is not what the protocol says.
    #[error("the certificate authority answered: {0}")]
    Answer(String),
    /// It cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A fresh key and the request for its certificate.
pub(super) struct Request {
    pub(super) key_pem: String,
    pub(super) csr_pem: String,
}

impl Request {
    /// ECDSA P-256; the request carries the identity and no subject.
    pub(super) fn new(identity: &Identity) -> Result<Self, IssuedError> {
        let failed = |error: rcgen::Error| IssuedError::Key(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = identity.to_string().try_into().map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(name)];
        let csr = params.serialize_request(&key).map_err(failed)?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem: csr.pem().map_err(failed)?,
        })
    }
}

impl Issued {
    /// Takes what was answered: the leaf, intermediates, last the roots, each element PEM.
    pub(super) fn new(
        identity: &Identity,
        key_pem: String,
        chain_pem: Vec<String>,
        now: SystemTime,
    ) -> Result<Self, IssuedError> {
        let answer = |problem: String| IssuedError::Answer(problem);
        let [chain @ .., roots_pem] = chain_pem.as_slice() else {
            return Err(answer("nothing".into()));
        };
        let mut chain_der = Vec::new();
        for element in chain {
            chain_der.extend(certificates(element)?);
        }
        let Some(leaf) = chain_der.first() else {
            return Err(answer("no root beside the leaf".into()));
        };
        let named = leaf_identity(leaf).map_err(|error| answer(error.to_string()))?;
        if named != *identity {
            return Err(answer(format!("a certificate of {named}")));
        }
        let (not_before, not_after, serial) = validity(leaf)?;
        let roots = Arc::new(root_store(roots_pem)?);
        let own = Arc::new(certified(chain_der, &key_pem)?);
        let server = tls::server_config(own.clone(), roots.clone(), identity.trust_domain())?;
        Ok(Self {
            own,
            roots,
            trust_domain: identity.trust_domain().into(),
            server: Arc::new(server),
            not_before,
            not_after,
            renew_at: halfway(not_before.max(now), not_after),
            serial,
            key_pem,
            chain_pem,
        })
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    pub(super) fn client_config(&self, expected: &[Identity]) -> Result<ClientConfig, TlsError> {
        tls::client_config(self.own.clone(), self.roots.clone(), &self.trust_domain, expected)
    }

    pub(super) fn valid_at(&self, now: SystemTime) -> bool {
        now < self.not_after
    }

    /// Half of the life that was left when it came: authorities date the beginning back.
    pub(super) fn renew_at(&self) -> SystemTime {
        self.renew_at
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IssuedError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| IssuedError::Answer(format!("not a certificate: {error}")))
}

fn root_store(pem: &str) -> Result<RootCertStore, IssuedError> {
    let mut store = RootCertStore::empty();
    for root in certificates(pem)? {
        store
            .add(root)
            .map_err(|error| IssuedError::Answer(format!("not a root: {error}")))?;
    }
    if store.is_empty() {
        return Err(IssuedError::Answer("no root".into()));
    }
    Ok(store)
}

/// Fails where the key does not belong to the leaf.
fn certified(chain: Vec<CertificateDer<'static>>, key_pem: &str) -> Result<CertifiedKey, IssuedError> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| IssuedError::Key(error.to_string()))?;
    CertifiedKey::from_der(chain, PrivateKeyDer::from(key), &provider())
        .map_err(|error| IssuedError::Answer(format!("a certificate for another key: {error}")))
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime, String), IssuedError> {
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|error| IssuedError::Answer(error.to_string()))?;
    let moment = |seconds: i64| {
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        SystemTime::UNIX_EPOCH + since
    };
    let validity = leaf.validity();
    let serial = leaf.raw_serial_as_string();
    Ok((
        moment(validity.not_before.timestamp()),
        moment(validity.not_after.timestamp()),
        serial,
    ))
}

/// A certificate for people: never with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// SPIFFE id.
    pub identity: String,
    /// `valid`, `expired` or `awaited`.
    pub state: &'static str,
    /// Hexadecimal.
    pub serial: Option<String>,
    /// Seconds since 1970.
    pub not_before: Option<u64>,
    /// Seconds since 1970.
    pub not_after: Option<u64>,
    /// How many roots peers are verified against.
    pub roots: usize,
    /// What went wrong since it was issued.
    pub failure: Option<String>,
}

impl Summary {
    pub(super) fn new(
        identity: &Identity,
        issued: Option<&Issued>,
        failure: Option<&str>,
        now: SystemTime,
    ) -> Self {
        let seconds = |moment: SystemTime| {
            let since = moment.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        Self {
            identity: identity.to_string(),
            state: match issued {
                None => "awaited",
                Some(issued) if issued.valid_at(now) => "valid",
                Some(_) => "expired",
            },
            serial: issued.map(|issued| issued.serial.clone()),
            not_before: issued.map(|issued| seconds(issued.not_before)),
            not_after: issued.map(|issued| seconds(issued.not_after)),
            roots: issued.map_or(0, |issued| issued.roots.len()),
            failure: failure.map(Into::into),
        }
    }
}
