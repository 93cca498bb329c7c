//! The certificate authority: what it signs and with what. It decides nothing about who may ask; the names
//! in a certificate come from its caller, never from a request.

mod keep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use time::OffsetDateTime;
use trefoil_api::Identity;
use trefoil_api::proto::trefoil::v1 as message;
use x509_parser::prelude::{ParsedExtension, X509Certificate};
use x509_parser::utils::format_serial;

pub use keep::{Keeper, load_or_create};

/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(60);
/// Of the root that is made here.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A fault of the certificate authority or of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or certificate that was given cannot be used.
    #[error("{what} of the certificate authority cannot be used: {problem}")]
    Unusable {
        /// Which.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// A request that cannot be read, or whose signature is not its key's.
    #[error("the request for a certificate is not valid: {0}")]
    Request(String),
    /// A request that names somebody else.
    #[error("the request is for {asked}, but the caller is {authenticated}")]
    OtherIdentity {
        /// What it names.
        asked: String,
        /// What it may name.
        authenticated: String,
    },
    /// The certificate authority's own certificate has ended.
    #[error("the certificate authority's own certificate has ended")]
    Ended,
    /// Signing failed.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
    /// The API server.
    #[error("the certificate authority cannot be kept: {0}")]
    Api(#[from] Box<kube::Error>),
}

/// The four files that an operator may give, all PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The signing certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The signing certificate and those up to the root.
    pub chain: String,
    /// The roots that are handed out.
    pub roots: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

/// A signed leaf.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The leaf, then intermediates, PEM, one an element.
    pub chain: Vec<String>,
    /// The roots, PEM, in one text.
    pub roots: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    intermediates: Vec<CertificateDer<'static>>,
    roots: String,
    not_after: OffsetDateTime,
    key_identifier: Vec<u8>,
    material: Material,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Material {
    /// A new root, ECDSA P-256.
    pub fn create(trust_domain: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, trust_domain);
        name.push(DnType::CommonName, "Trefoil root");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - SKEW;
        params.not_after = now + ROOT_LIFETIME;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            certificate: certificate.clone(),
            key: key.serialize_pem(),
            chain: String::new(),
            roots: certificate,
        })
    }
}

impl Authority {
    /// Reads what was given or made.
    pub fn new(material: Material) -> Result<Self, Error> {
        let unusable = |what: &'static str, problem: &dyn ToString| Error::Unusable {
            what,
            problem: problem.to_string(),
        };
        let own = CertificateDer::from_pem_slice(material.certificate.as_bytes())
            .map_err(|error| unusable("the certificate", &error))?;
        let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes())
            .map_err(|error| unusable("the key", &error))?;
        let key = KeyPair::try_from(&key).map_err(|error| unusable("the key", &error))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&own).map_err(|error| unusable("the certificate", &error))?;
        if !parsed.is_ca() {
            return Err(unusable("the certificate", &"it may not sign others"));
        }
        let subject_key = parsed.public_key().subject_public_key.data.as_ref();
        if subject_key != rcgen::PublicKeyData::der_bytes(&key) {
            return Err(unusable("the key", &"it is not the certificate's"));
        }
        let not_after = parsed.validity().not_after.to_datetime();
        let key_identifier = key_identifier(&parsed, &key);
        let roots = certificates(&material.roots).map_err(|error| unusable("the root", &error))?;
        if roots.is_empty() {
            return Err(unusable("the root", &"there is none"));
        }
        let given = certificates(&material.chain).map_err(|error| unusable("the chain", &error))?;
        // The signing certificate first, then what else leads to a root; never a root itself.
        let mut intermediates = Vec::new();
        for one in std::iter::once(own.clone()).chain(given) {
            if !roots.contains(&one) && !intermediates.contains(&one) {
                intermediates.push(one);
            }
        }
        let authority = Self {
            issuer: Issuer::from_ca_cert_der(&own, key)?,
            intermediates,
            roots: material.roots.clone(),
            not_after,
            key_identifier,
            material,
        };
        authority.is_believed_by(roots)?;
        Ok(authority)
    }

    /// Whether who believes the roots believes what it signs: planes act on a change at once.
    fn is_believed_by(&self, roots: Vec<CertificateDer<'static>>) -> Result<(), Error> {
        const NAME: &str = "believed.invalid";
        let unusable = |what: &'static str, problem: &dyn ToString| Error::Unusable {
            what,
            problem: problem.to_string(),
        };
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|error| unusable("the root", &error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| unusable("the root", &error))?;
        let (chain, _) = self.serve(&[NAME.into()], SKEW)?;
        let [leaf, intermediates @ ..] = chain.as_slice() else {
            return Err(unusable("the certificate", &"it signs nothing"));
        };
        let name = ServerName::try_from(NAME).map_err(|error| unusable("the certificate", &error))?;
        verifier
            .verify_server_cert(leaf, intermediates, &name, &[], UnixTime::now())
            .map_err(|error| unusable("the chain", &format!("no root believes what it signs: {error}")))?;
        Ok(())
    }

    /// What it was made from.
    #[must_use]
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// The roots, PEM.
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// What planes are told of it: what is of another is renewed.
    #[must_use]
    pub fn in_force(&self) -> message::Authority {
        message::Authority {
            key_identifier: self.key_identifier.clone().into(),
            roots: self.roots.clone(),
        }
    }

    /// Which key it signs with, hexadecimal.
    #[must_use]
    pub fn signer(&self) -> String {
        format_serial(&self.key_identifier)
    }

    /// When its own certificate ends.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Signs a request for an identity that was authenticated. Of the request only the key is used; one that
    /// names anybody else is refused.
    pub fn sign(&self, request: &str, identity: &Identity, lifetime: Duration) -> Result<Signed, Error> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| Error::Request(error.to_string()))?;
        let authenticated = identity.to_string();
        for name in &request.params.subject_alt_names {
            if !matches!(name, SanType::URI(uri) if uri.as_str() == authenticated) {
                return Err(Error::OtherIdentity {
                    asked: match name {
                        SanType::URI(uri) => uri.to_string(),
                        other => format!("{other:?}"),
                    },
                    authenticated,
                });
            }
        }
        let uri = authenticated
            .as_str()
            .try_into()
            .map_err(|_| Error::Request("the identity is not ASCII".into()))?;
        let params = leaf(vec![SanType::URI(uri)]);
        self.finish(params, &request.public_key, lifetime)
    }

    /// A certificate and key of the control plane's own, for these DNS names.
    pub fn serve(
        &self,
        names: &[String],
        lifetime: Duration,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let key = KeyPair::generate()?;
        let names = names
            .iter()
            .map(|name| name.as_str().try_into().map(SanType::DnsName));
        let params = leaf(names.collect::<Result<_, _>>()?);
        let signed = self.finish(params, &key, lifetime)?;
        let mut chain =
            certificates(&signed.chain.concat()).map_err(|error| Error::Request(error.to_string()))?;
        chain.dedup();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((chain, key.into()))
    }

    fn finish(
        &self,
        mut params: CertificateParams,
        key: &impl rcgen::PublicKeyData,
        lifetime: Duration,
    ) -> Result<Signed, Error> {
        let now = OffsetDateTime::now_utc();
        if now >= self.not_after {
            return Err(Error::Ended);
        }
        params.not_before = now - SKEW;
        params.not_after = (now + lifetime).min(self.not_after);
        let not_after = params.not_after;
        let certificate = params.signed_by(key, &self.issuer)?;
        let serial = x509_parser::parse_x509_certificate(certificate.der())
            .map(|(_, parsed)| parsed.raw_serial_as_string())
            .unwrap_or_default();
        let mut chain = vec![certificate.pem()];
        chain.extend(self.intermediates.iter().map(|one| pem("CERTIFICATE", one)));
        Ok(Signed {
            chain,
            roots: self.roots.clone(),
            serial,
            not_after,
        })
    }
}

/// By which leaves say who signed them: what the certificate says of its key, as who signs with it does.
fn key_identifier(own: &X509Certificate<'_>, key: &KeyPair) -> Vec<u8> {
    let said = own
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(said) => Some(said.0.to_vec()),
            _ => None,
        });
    said.unwrap_or_else(|| CertificateParams::default().key_identifier(key))
}

fn leaf(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        lines.push_str(line);
        lines.push('\n');
        rest = more;
    }
    lines + &format!("-----END {label}-----\n")
}
