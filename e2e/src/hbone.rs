//! A peer of the mesh that the tests own: speaks HBONE as the wire facts describe it, reads the other end's
//! certificate, and says what it saw. Shares no code with the data planes, so that an error there is not
//! repeated here.

pub mod client;
pub mod server;
mod tls;

use anyhow::Context;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

#[cfg(test)]
mod tests;

/// The URI names of a certificate, all of them.
pub fn uri_names(certificate: &CertificateDer<'_>) -> anyhow::Result<Vec<String>> {
    let (_, certificate) = X509Certificate::from_der(certificate).context("not a certificate")?;
    let Some(names) = certificate.subject_alternative_name()? else {
        return Ok(Vec::new());
    };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(uri).collect())
}

/// The URI names of the first certificate in PEM.
pub fn uri_names_of_pem(pem: &str) -> anyhow::Result<Vec<String>> {
    uri_names(&CertificateDer::from_pem_slice(pem.as_bytes()).context("no certificate in PEM")?)
}
