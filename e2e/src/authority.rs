//! Certificates for the test-owned peer: asked of the mesh's authority as any client would, rightfully or
//! not, or made by an authority that the mesh has never heard of. Judges nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use trefoil_api::proto::istio::v1::auth::IstioCertificateRequest;

#[cfg(test)]
mod tests;

/// The client generated from the certificate service's protobuf.
pub(crate) mod stub {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("istio.v1.auth");
}

/// The name that the control plane's certificate shows, whatever its address.
const CONTROL_PLANE_NAME: &str = "trefoil-control-plane.trefoil-system.svc";

/// What is asked of the authority.
#[derive(Clone, Debug, clap::Args)]
pub struct Ask {
    /// The control plane, `https://ADDRESS:PORT`.
    #[arg(long)]
    pub control_plane: String,
    /// File with the token that is shown.
    #[arg(long)]
    pub token: PathBuf,
    /// File with the mesh's root.
    #[arg(long)]
    pub root: PathBuf,
    /// URI names in the request; repeatable.
    #[arg(long = "uri")]
    pub uris: Vec<String>,
    /// The identity that a node proxy asks for on behalf of a workload.
    #[arg(long)]
    pub impersonate: Option<String>,
    /// Where key.pem, chain.pem and root.pem are written.
    #[arg(long)]
    pub out: PathBuf,
}

/// What the authority said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Signed, for these URI names.
    Signed(Vec<String>),
    /// Refused.
    Refused {
        /// The gRPC status code.
        code: String,
        /// Its message.
        message: String,
    },
}

/// Asks for a certificate and stores what comes.
pub async fn ask(ask: &Ask) -> anyhow::Result<Answer> {
    let root = std::fs::read_to_string(&ask.root).context("reading the root")?;
    let token = std::fs::read_to_string(&ask.token).context("reading the token")?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&root))
        .domain_name(CONTROL_PLANE_NAME);
    let channel = Endpoint::from_shared(ask.control_plane.clone())?
        .timeout(Duration::from_secs(10))
        .tls_config(tls)?
        .connect()
        .await
        .context("connecting to the control plane")?;
    let key = KeyPair::generate()?;
    let csr = parameters(&ask.uris)?.serialize_request(&key)?.pem()?;
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr,
        validity_duration: 3600,
        metadata: ask.impersonate.as_deref().map(impersonation),
    });
    let bearer = format!("Bearer {}", token.trim()).parse()?;
    request.metadata_mut().insert("authorization", bearer);
    let mut client = stub::istio_certificate_service_client::IstioCertificateServiceClient::new(channel);
    let chain = match client.create_certificate(request).await {
        Ok(response) => response.into_inner().cert_chain,
        Err(status) => {
            return Ok(Answer::Refused {
                code: format!("{:?}", status.code()),
                message: status.message().into(),
            });
        }
    };
    let (roots, certificates) = chain.split_last().context("an empty chain")?;
    let leaf = certificates.first().context("a chain without a leaf")?;
    let uris = crate::hbone::uri_names_of_pem(leaf)?;
    store(&ask.out, &key.serialize_pem(), &certificates.join(""), roots)?;
    Ok(Answer::Signed(uris))
}

/// A certificate of an authority of our own. The peer's verification still uses `root`, if one is given.
pub fn foreign(uris: &[String], root: Option<&Path>, out: &Path) -> anyhow::Result<()> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let authority_key = KeyPair::generate()?;
    let own_root = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let leaf = parameters(uris)?.signed_by(&key, &issuer)?;
    let root = match root {
        Some(file) => std::fs::read_to_string(file)?,
        None => own_root,
    };
    store(out, &key.serialize_pem(), &leaf.pem(), &root)
}

/// A certificate signed with an authority's stolen key, of whatever names.
pub fn signed_by(
    uris: &[String],
    authority: &str,
    authority_key: &str,
    root: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    let issuer = Issuer::from_ca_cert_pem(authority, KeyPair::from_pem(authority_key)?)?;
    let key = KeyPair::generate()?;
    let leaf = parameters(uris)?.signed_by(&key, &issuer)?;
    let chain = format!("{}{authority}", leaf.pem());
    store(out, &key.serialize_pem(), &chain, &std::fs::read_to_string(root)?)
}

fn parameters(uris: &[String]) -> anyhow::Result<CertificateParams> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    for uri in uris {
        parameters
            .subject_alt_names
            .push(SanType::URI(uri.as_str().try_into()?));
    }
    Ok(parameters)
}

/// What a node proxy says of whom it asks for.
pub(crate) fn impersonation(identity: &str) -> Struct {
    let value = Value {
        kind: Some(Kind::StringValue(identity.into())),
    };
    Struct {
        fields: [("ImpersonatedIdentity".to_owned(), value)].into(),
    }
}

fn store(out: &Path, key: &str, chain: &str, root: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(out)?;
    for (name, content) in [("key.pem", key), ("chain.pem", chain), ("root.pem", root)] {
        std::fs::write(out.join(name), content)?;
    }
    Ok(())
}
