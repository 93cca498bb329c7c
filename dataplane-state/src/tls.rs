//! TLS between workloads: 1.3 only, suites and groups named here, both ends proven by a certificate with
//! exactly one SPIFFE identity of our trust domain. It never falls back to anything weaker.

#[cfg(any(test, feature = "fixtures"))]
#[path = "tls/tests/authority.rs"]
#[allow(clippy::expect_used, clippy::new_without_default)]
pub mod authority;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use trefoil_api::Identity;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use verify::PeerVerifier;

/// The application protocol of HBONE.
pub const ALPN: &[u8] = b"h2";

/// Why a peer's certificate was refused although its chain is good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// SPIFFE asks for exactly one: with more, the ends could disagree about who it is.
    #[error("the certificate has {count} URI names, not exactly one")]
    NotOneName {
        /// How many it has.
        count: usize,
    },
    /// The one name is not an identity.
    #[error("the certificate's name is not an identity: {0}")]
    NotAnIdentity(String),
    /// An identity that another authority vouches for.
    #[error("{identity} is not of trust domain {ours}")]
    ForeignTrustDomain {
        /// The peer's.
        identity: Identity,
        /// Ours.
        ours: String,
    },
    /// A server that is not the one that was meant.
    #[error("{identity} is not the server that was meant ({expected})")]
    NotExpected {
        /// The server's.
        identity: Identity,
        /// Who was meant.
        expected: String,
    },
    /// Not a certificate.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
}

/// Why a TLS configuration could not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// No usable root.
    #[error("the roots are unusable: {0}")]
    Roots(String),
    /// The library refuses it.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// Cryptography, with suites and groups set explicitly, most preferred first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ],
            kx_groups: vec![
                aws_lc_rs::kx_group::X25519,
                aws_lc_rs::kx_group::SECP256R1,
                aws_lc_rs::kx_group::SECP384R1,
                aws_lc_rs::kx_group::X25519MLKEM768,
            ],
            ..aws_lc_rs::default_provider()
        })
    });
    PROVIDER.clone()
}

/// The identity that a leaf certificate proves: its one URI name. The chain is not looked at.
pub fn leaf_identity(leaf: &CertificateDer<'_>) -> Result<Identity, PeerRefused> {
    let unreadable = |error: String| PeerRefused::Unreadable(error);
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| unreadable(error.to_string()))?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| unreadable(error.to_string()))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris.as_slice() else {
        return Err(PeerRefused::NotOneName { count: uris.len() });
    };
    uri.parse()
        .map_err(|error: trefoil_api::identity::NotAnIdentity| PeerRefused::NotAnIdentity(error.to_string()))
}

/// Until when a leaf certificate proves anything.
pub fn leaf_not_after(leaf: &CertificateDer<'_>) -> Result<SystemTime, PeerRefused> {
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|error| PeerRefused::Unreadable(error.to_string()))?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// What a server needs: every client must prove an identity of `trust_domain`.
pub fn server_config(
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    trust_domain: &str,
) -> Result<ServerConfig, TlsError> {
    let verifier = PeerVerifier::new(roots, trust_domain, None)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What a client needs: the server must prove one of the `expected` identities.
pub fn client_config(
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    trust_domain: &str,
    expected: &[Identity],
) -> Result<ClientConfig, TlsError> {
    let verifier = PeerVerifier::new(roots, trust_domain, Some(expected.to_vec()))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}
