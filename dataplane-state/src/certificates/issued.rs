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
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
use x509_parser::utils::format_serial;

use super::halfway;
use crate::state::InForce;
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
    signer: Vec<u8>,
    root_serials: Vec<String>,
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
        let Said {
            not_before,
            not_after,
            serial,
            signer,
        } = read(leaf)?;
        let roots = Arc::new(root_store(roots_pem)?);
        let root_serials = certificates(roots_pem)?
            .iter()
            .map(serial_of)
            .collect::<Result<_, _>>()?;
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
            signer,
            root_serials,
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

    /// Whether an authority would issue the like of it: signed with that key, and vouched for by those roots.
    pub(super) fn is_of(&self, authority: &InForce) -> bool {
        self.signer == authority.key_identifier && self.chain_pem.last() == Some(&authority.roots)
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

/// What a leaf says of itself.
struct Said {
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
    /// Which key signed it; empty where it does not say.
    signer: Vec<u8>,
}

fn read(leaf: &CertificateDer<'_>) -> Result<Said, IssuedError> {
    let leaf = parsed(leaf)?;
    let moment = |seconds: i64| {
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        SystemTime::UNIX_EPOCH + since
    };
    let signer = leaf
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(signer) => signer.key_identifier.clone(),
            _ => None,
        });
    let validity = leaf.validity();
    Ok(Said {
        not_before: moment(validity.not_before.timestamp()),
        not_after: moment(validity.not_after.timestamp()),
        serial: leaf.raw_serial_as_string(),
        signer: signer.map(|signer| signer.0.to_vec()).unwrap_or_default(),
    })
}

fn serial_of(certificate: &CertificateDer<'_>) -> Result<String, IssuedError> {
    parsed(certificate).map(|certificate| certificate.raw_serial_as_string())
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IssuedError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| IssuedError::Answer(error.to_string()))?;
    Ok(parsed)
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
    /// Their serial numbers, hexadecimal.
    pub root_serials: Vec<String>,
    /// Which key signed it, hexadecimal (RFC 5280, section 4.2.1.1).
    pub signer: Option<String>,
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
            root_serials: issued
                .map(|issued| issued.root_serials.clone())
                .unwrap_or_default(),
            signer: issued.map(|issued| format_serial(&issued.signer)),
            failure: failure.map(Into::into),
        }
    }
}
