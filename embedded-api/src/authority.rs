//! The API's own keys: its certificate authority, its server certificate, the token key and the admin's token.
//!
//! Made at the first start and kept in the store under a resource that the API does not have, so that no
//! request can reach them. Not the mesh's CA: that one is a Secret.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::store::{Key, Store, StoreError};

/// Why the API's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Certificates cannot be made.
    #[error("cannot make the API's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS does not take them.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key in the store is damaged.
    #[error("the API's key {0} in the store is damaged")]
    Damaged(&'static str),
}

/// The keys.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// The CA's certificate, PEM.
    pub(crate) certificate: String,
    key: String,
    /// The key of tokens, PEM.
    pub(crate) token_key: String,
    /// The admin's bearer token.
    pub(crate) admin_token: String,
}

impl Authority {
    /// Reads the keys from the store, making them first if there are none.
    ///
    /// # Errors
    /// When they are damaged or cannot be kept.
    pub(crate) async fn load(store: &Store, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let key = Key::new("\u{1}internal", "", "authority");
        if let Some(value) = store.snapshot().get(&key) {
            return Self::from_value(value);
        }
        let made = Self::make(now)?;
        let value = json!({
            "certificate": made.certificate, "key": made.key, "tokenKey": made.token_key,
            "adminToken": made.admin_token,
        });
        store
            .write(move |transaction| {
                transaction.put(key, value);
                Ok::<_, StoreError>(())
            })
            .await?;
        Ok(made)
    }

    fn from_value(value: &Value) -> Result<Self, AuthorityError> {
        let text = |field: &'static str| {
            value[field]
                .as_str()
                .map(str::to_owned)
                .ok_or(AuthorityError::Damaged(field))
        };
        Ok(Self {
            certificate: text("certificate")?,
            key: text("key")?,
            token_key: text("tokenKey")?,
            admin_token: text("adminToken")?,
        })
    }

    fn make(now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "trefoil-embedded-api");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - Duration::hours(1);
        params.not_after = now + Duration::days(3650);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self {
            certificate: authority.pem(),
            key: authority.key().serialize_pem(),
            token_key: KeyPair::generate()?.serialize_pem(),
            admin_token: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()),
        })
    }

    /// TLS of a server at these addresses, with a certificate made now.
    ///
    /// # Errors
    /// When the kept key is damaged.
    pub(crate) fn server_config(
        &self,
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> Result<Arc<rustls::ServerConfig>, AuthorityError> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        let mut params = CertificateParams::new(names.map(str::to_owned))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "trefoil-embedded-api");
        // With its issuer's very name OpenSSL takes it for self-signed, and curl and Python refuse it.
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "server");
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = now - Duration::hours(1);
        params.not_after = now + Duration::days(365);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
