//! Certificates of the authority that end soon: those of workloads are renewed by themselves, these by somebody.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::planes::{Planes, Role};

#[cfg(test)]
mod tests;

/// What is left when it is time: an authority's certificate that ends sooner shortens those that it signs.
const SOON: i64 = 7 * 24 * 3600;

/// What is found, each with its remedy.
pub(super) async fn findings(planes: &Planes) -> anyhow::Result<Vec<(String, String)>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut found = Vec::new();
    for plane in planes.all().await? {
        if plane.role != Role::ControlPlane {
            continue;
        }
        // One that does not answer is among what is unhealthy.
        let said = plane.ask(planes, "certificates").await.unwrap_or_default();
        found.extend(ending(&said["authority"], i64::try_from(now)?));
    }
    found.sort();
    // Replicas say the same.
    found.dedup();
    Ok(found)
}

/// Which of the authority's certificates end soon.
fn ending(authority: &Value, now: i64) -> Vec<(String, String)> {
    let mut ends: Vec<(String, i64)> = Vec::new();
    if let Some(end) = authority["notAfterSeconds"].as_i64() {
        ends.push(("the certificate that the authority signs with".into(), end));
    }
    let roots = authority["roots"].as_str().unwrap_or_default();
    let certificates = CertificateDer::pem_slice_iter(roots.as_bytes()).filter_map(Result::ok);
    ends.extend(certificates.filter_map(|certificate| {
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        let name = format!(
            "root {} (serial {})",
            parsed.subject(),
            parsed.raw_serial_as_string()
        );
        Some((name, parsed.validity().not_after.timestamp()))
    }));
    let soon = ends.into_iter().filter(|(_, end)| end - now < SOON);
    soon.map(|(name, end)| {
        let when = match end - now {
            left @ 1.. => format!("ends in {} h", left / 3600),
            _ => "has ended".to_owned(),
        };
        (
            format!("{name} {when}"),
            "replace it by overlap, as docs/operations.md says: the new root beside the old one first"
                .to_owned(),
        )
    })
    .collect()
}
