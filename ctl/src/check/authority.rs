//! Certificates of the authority that end soon: those of workloads are renewed by themselves, these by somebody; and
//! which planes have yet to follow where somebody did.

use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::planes::{Plane, Planes, Role};

#[cfg(test)]
mod tests;

/// Planes that are asked at a time.
const AT_ONCE: usize = 8;
/// What is left when it is time: an authority's certificate that ends sooner shortens those that it signs.
const SOON: i64 = 7 * 24 * 3600;

/// What is found, each with its remedy.
pub(super) async fn findings(planes: &Planes) -> anyhow::Result<Vec<(String, String)>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut found = Vec::new();
    let mut authorities = Vec::new();
    let all = planes.all().await?;
    for plane in all.iter().filter(|plane| plane.role == Role::ControlPlane) {
        // One that does not answer is among what is unhealthy.
        let said = plane.ask(planes, "certificates").await.unwrap_or_default();
        found.extend(ending(&said["authority"], i64::try_from(now)?));
        authorities.extend(InForce::of(&said["authority"]));
    }
    found.sort();
    // Replicas say the same.
    found.dedup();
    authorities.dedup();
    match authorities.as_slice() {
        [authority] => found.extend(of_another(planes, &all, authority).await),
        [] => {}
        _ => found.push((
            "replicas of the control plane sign with different authorities".into(),
            "each reads Secret trefoil-ca every ten seconds; if it lasts, see their logs".into(),
        )),
    }
    Ok(found)
}

/// What certificates are signed with now, as the control plane says.
#[derive(Debug, PartialEq, Eq)]
struct InForce {
    /// Of the key, as a leaf names it.
    signer: String,
    /// Serial numbers, sorted.
    roots: Vec<String>,
}

impl InForce {
    /// Nothing where it does not say: it is of an older version.
    fn of(authority: &Value) -> Option<Self> {
        let signer = authority["signer"].as_str()?.to_owned();
        let mut roots: Vec<String> = roots(authority)
            .iter()
            .map(|root| serial(root))
            .collect::<Option<_>>()?;
        roots.sort();
        Some(Self { signer, roots })
    }

    /// Whether it would issue the like of a certificate.
    fn issues(&self, certificate: &Value) -> bool {
        let serials = certificate["root_serials"].as_array().into_iter().flatten();
        let mut serials: Vec<&str> = serials.filter_map(Value::as_str).collect();
        serials.sort_unstable();
        certificate["signer"] == self.signer.as_str() && serials == self.roots
    }
}

/// Planes with certificates of another authority than the one in force.
async fn of_another(planes: &Planes, all: &[Plane], authority: &InForce) -> Vec<(String, String)> {
    let serve = [Role::NodeProxy, Role::Sidecar, Role::Waypoint];
    let asked = all.iter().filter(|plane| serve.contains(&plane.role)).map(|plane| async move {
        let Ok(said) = plane.ask(planes, "certificates").await else {
            let finding = format!(
                "the {} of {} does not say of which authority its certificates are",
                plane.role.name(),
                plane.of
            );
            return Some((finding, "see `trefoilctl status`, and its log".to_owned()));
        };
        let certificates = said["certificates"].as_array().cloned().unwrap_or_default();
        let behind = behind(&certificates, authority);
        (behind > 0).then(|| {
            let finding = format!(
                "{behind} of {} certificates of the {} of {} are of another authority than the one that is in force",
                certificates.len(),
                plane.role.name(),
                plane.of,
            );
            let remedy = "planes renew them within a minute of a change; wait for that before the next step of \
                          a replacement (docs/operations.md), and see the log of a plane that does not";
            (finding, remedy.to_owned())
        })
    });
    let found = futures::stream::iter(asked)
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    found.into_iter().flatten().collect()
}

/// How many of a plane's are to be renewed. One of an older version does not say, and renews at half their life.
fn behind(certificates: &[Value], authority: &InForce) -> usize {
    let says = certificates.iter().filter(|one| one["signer"].is_string());
    says.filter(|one| !authority.issues(one)).count()
}

fn roots(authority: &Value) -> Vec<CertificateDer<'static>> {
    let roots = authority["roots"].as_str().unwrap_or_default();
    CertificateDer::pem_slice_iter(roots.as_bytes())
        .filter_map(Result::ok)
        .collect()
}

fn serial(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.raw_serial_as_string())
}

/// Which of the authority's certificates end soon.
fn ending(authority: &Value, now: i64) -> Vec<(String, String)> {
    let mut ends: Vec<(String, i64)> = Vec::new();
    if let Some(end) = authority["notAfterSeconds"].as_i64() {
        ends.push(("the certificate that the authority signs with".into(), end));
    }
    ends.extend(roots(authority).into_iter().filter_map(|certificate| {
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
            "replace it by overlap, as docs/operations.md says (Replace the root)".to_owned(),
        )
    })
    .collect()
}
