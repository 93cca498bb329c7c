//! The one layer at fault, from what is held and from what became of a connection. Pure: it repeats what the
//! planes say and decides nothing for them.

use trefoil_api::question::{Fault, Outcome, Probed};

use super::Layer;
use super::findings::Finding;

#[cfg(test)]
mod tests;

/// What it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The layer at fault; none where nothing is.
    pub(super) layer: Option<Layer>,
    /// Why.
    pub(super) reason: String,
}

/// The first fault that is held, else what became of the connection.
pub(super) fn judge(findings: &[Finding], probed: Option<&Result<Probed, String>>) -> Verdict {
    let held = findings
        .iter()
        .filter(|finding| !finding.well)
        .min_by_key(|finding| finding.layer);
    let made = probed.and_then(|probed| probed.as_ref().ok());
    if let Some(finding) = held {
        let contrary = match made.map(|probed| probed.outcome) {
            Some(Outcome::Answered | Outcome::Open) => {
                "; yet a connection that was made just now got through"
            }
            _ => "",
        };
        return Verdict {
            layer: Some(finding.layer),
            reason: format!("{}: {}{contrary}", finding.of, finding.detail),
        };
    }
    let (layer, reason) = match probed {
        None => (None, NOT_TRIED.into()),
        Some(Err(error)) => (
            Some(Layer::Plane),
            format!("nothing is held against it, and no connection could be tried: {error}"),
        ),
        Some(Ok(probed)) => of_probe(probed),
    };
    Verdict { layer, reason }
}

/// Neither end has a plane that could be asked.
const NOT_TRIED: &str =
    "neither end has a plane: the mesh carries nothing between them, and nothing was tried";

fn of_probe(probed: &Probed) -> (Option<Layer>, String) {
    match (&probed.fault, probed.outcome) {
        (Some(fault), _) if fault.reason.ends_with("503 Service Unavailable") => {
            let address = probed
                .address
                .map_or_else(String::new, |address| format!(" at {address}"));
            let reason = format!("the server's plane lets it in and cannot reach the application{address}");
            (Some(Layer::Application), format!("{reason}: {}", fault.reason))
        }
        (Some(fault), _) => (Some(layer_of(fault)), fault.reason.clone()),
        (None, Outcome::Closed) => (
            Some(Layer::Application),
            "the connection was made, and the application ended it at once".into(),
        ),
        (None, Outcome::Failed) => (Some(Layer::Plane), "the connection was not made".into()),
        (None, Outcome::Answered | Outcome::Open) => (
            None,
            format!(
                "nothing is wrong: a connection was made just now ({})",
                probed.path
            ),
        ),
    }
}

/// The layer that a plane blames.
pub(super) fn layer_of(fault: &Fault) -> Layer {
    match (fault.layer.as_str(), fault.flag.as_str()) {
        ("policy", _) => Layer::Policy,
        ("redirection", _) => Layer::Redirection,
        ("application", _) if fault.reason.contains("no healthy endpoint") => Layer::Endpoint,
        ("application", _) => Layer::Application,
        (_, "TLS_FAILURE" | "IDENTITY_ERROR") => Layer::Certificate,
        _ => Layer::Plane,
    }
}
