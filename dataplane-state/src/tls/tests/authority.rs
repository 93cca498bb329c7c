//! A certificate authority in memory, for tests of what presents and verifies certificates.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use trefoil_api::identity::Identity;
use trefoil_api::proto::trefoil::v1 as message;

use super::provider;

/// A certificate authority in memory.
#[allow(missing_debug_implementations)]
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub root_pem: String,
    root: CertificateDer<'static>,
    key_identifier: Vec<u8>,
}

impl TestAuthority {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).expect("a root");
        Self {
            root_pem: root.pem(),
            root: root.der().clone(),
            key_identifier: params.key_identifier(&key),
            issuer: Issuer::new(params, key),
        }
    }

    /// What trusts it.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        store.add(self.root.clone()).expect("a root");
        Arc::new(store)
    }

    /// What planes are told of it.
    #[must_use]
    pub fn in_force(&self) -> message::Authority {
        message::Authority {
            key_identifier: self.key_identifier.clone().into(),
            roots: self.root_pem.clone(),
        }
    }

    /// A leaf with these names, valid from `from` until `to` seconds from now.
    #[must_use]
    pub fn leaf(&self, names: Vec<SanType>, from: i64, to: i64) -> Arc<CertifiedKey> {
        let (certificate, key) = self.leaf_and_key(names, from, to);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![certificate.der().clone()];
        Arc::new(CertifiedKey::from_der(chain, key, &provider()).expect("a pair"))
    }

    /// The same, as certificate and key.
    #[must_use]
    pub fn leaf_and_key(&self, names: Vec<SanType>, from: i64, to: i64) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let params = leaf_params(names, from, to);
        (params.signed_by(&key, &self.issuer).expect("a leaf"), key)
    }

    /// Signs a request as the control plane does: with the identity that was asked for out of band.
    #[must_use]
    pub fn sign(&self, csr: &str, identity: &Identity, from: i64, to: i64) -> Vec<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).expect("a request");
        request.params = leaf_params(vec![uri(&identity.to_string())], from, to);
        let leaf = request.signed_by(&self.issuer).expect("a leaf");
        vec![leaf.pem(), self.root_pem.clone()]
    }
}

fn leaf_params(names: Vec<SanType>, from: i64, to: i64) -> CertificateParams {
    let now = time::OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.use_authority_key_identifier_extension = true;
    params.not_before = now + time::Duration::seconds(from);
    params.not_after = now + time::Duration::seconds(to);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

/// A name in a certificate.
#[must_use]
pub fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("a name"))
}

/// An identity in namespace `shop`.
#[must_use]
pub fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).expect("an identity")
}
