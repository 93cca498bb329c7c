//! A peer of the mesh that the tests own: speaks HBONE as the wire facts describe it, reads the other end's
//! certificate, and says what it saw. Shares no code with the data planes, so that an error there is not
//! repeated here.

pub mod client;
pub mod server;
mod tls;

use anyhow::Context;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

#[cfg(test)]
mod tests;

/// What a certificate says, for those that judge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its URI names, all of them.
    pub uris: Vec<String>,
    /// How many names of any kind it has.
    pub names: usize,
    /// It may sign others.
    pub authority: bool,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Hexadecimal.
    pub serial: String,
}

impl Certificate {
    /// Reads it.
    pub fn read(der: &CertificateDer<'_>) -> anyhow::Result<Self> {
        let (_, certificate) = X509Certificate::from_der(der).context("not a certificate")?;
        let names = certificate.subject_alternative_name()?;
        Ok(Self {
            uris: uri_names(der)?,
            names: names.map_or(0, |names| names.value.general_names.len()),
            authority: certificate.is_ca(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            serial: certificate.raw_serial_as_string(),
        })
    }
}

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
