//! `why CLIENT SERVER[:PORT]`: does it work, and if not, which one layer is at fault. It asks the planes what
//! they hold, then makes a real connection and asks the planes what became of it. It decides nothing for
//! them.

mod ends;
mod findings;
mod probe;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::demo::access::{Line, Log};
use crate::output::{Format, Table, Tone, toned};
use crate::planes::Planes;
use ends::{End, Target};
use findings::Finding;
use probe::{Outcome, Probe};

/// Where a connection can fail, in the order that it meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layer {
    /// What brings it to a plane.
    Redirection,
    /// The process that carries it.
    Plane,
    /// Who either end is.
    Certificate,
    /// Whether it may.
    Policy,
    /// Whether there is anybody to reach.
    Endpoint,
    /// What is reached.
    Application,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Why {
    client: String,
    server: String,
    destination: String,
    /// No layer is at fault.
    pub(crate) well: bool,
    /// The one that is.
    layer: Option<Layer>,
    reason: String,
    remedy: Option<&'static str>,
    findings: Vec<Finding>,
    probe: Option<Outcome>,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Redirection => "redirection",
            Self::Plane => "plane",
            Self::Certificate => "certificate",
            Self::Policy => "policy",
            Self::Endpoint => "endpoint",
            Self::Application => "application",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Redirection => "the node's agent puts the rules back when it is restarted: see its log",
            Self::Plane => "see the plane's log and `trefoilctl status`",
            Self::Certificate => "see the control plane's log: it signs only for what runs where it is asked",
            Self::Policy => {
                "change the policy named, or the client's service account: `trefoilctl get policies -A`"
            }
            Self::Endpoint => {
                "see that the service's selector matches pods and that they are ready: `trefoilctl get pods`"
            }
            Self::Application => "see that the program listens on this port on all addresses, and its log",
        }
    }
}

/// Finds out.
pub(crate) async fn why(planes: &Planes, client: &str, server: &str) -> anyhow::Result<Why> {
    let client = End::pod(planes, client).await?;
    let target = Target::find(planes, server).await?;
    let mut findings = findings::of_end(planes, &client).await;
    if let Some(server) = &target.end {
        findings.extend(findings::of_end(planes, server).await);
    }
    findings.push(findings::of_target(&target));
    let probed = match planes.local() {
        Some(mesh) if target.address.is_some() => Some(probe::make(mesh, &client, &target).await),
        _ => None,
    };
    Ok(judge(&client, &target, findings, probed))
}

/// What is held wrongly about any pod of the mesh.
pub(crate) async fn faults(planes: &Planes) -> anyhow::Result<Vec<String>> {
    let ends = End::enrolled(planes).await?;
    let held = futures::future::join_all(ends.iter().map(|end| findings::of_end(planes, end))).await;
    let wrong = held.into_iter().flatten().filter(|finding| !finding.well);
    Ok(wrong
        .map(|finding| format!("pod {}: {}: {}", finding.of, finding.layer.name(), finding.detail))
        .collect())
}

/// One layer: the first that is found at fault, else what the planes and the connection say.
fn judge(client: &End, target: &Target, findings: Vec<Finding>, probed: Option<Probe>) -> Why {
    let found = findings
        .iter()
        .filter(|finding| !finding.well)
        .min_by_key(|finding| finding.layer);
    let fault = found
        .map(|finding| (finding.layer, finding.detail.clone()))
        .or_else(|| probed.as_ref().and_then(of_probe));
    let reason = match (&fault, &probed) {
        (Some((_, reason)), _) => reason.clone(),
        (None, Some(_)) => "nothing is wrong: a connection was made just now".into(),
        (None, None) => "nothing is found wrong; no connection was tried".into(),
    };
    Why {
        client: client.name.clone(),
        server: target.name.clone(),
        destination: target
            .address
            .map_or_else(String::new, |address| address.to_string()),
        well: fault.is_none(),
        layer: fault.as_ref().map(|(layer, _)| *layer),
        remedy: fault.as_ref().map(|(layer, _)| layer.remedy()),
        reason,
        findings,
        probe: probed.map(|probe| probe.outcome),
    }
}

/// What the planes say became of the connection, else what the client saw.
fn of_probe(probe: &Probe) -> Option<(Layer, String)> {
    let lines = [probe.inbound.as_ref(), probe.outbound.as_ref()];
    let said = lines.into_iter().flatten().find_map(of_line);
    said.or_else(|| match &probe.outcome {
        Outcome::Answered | Outcome::Open => None,
        Outcome::Closed => Some((
            Layer::Application,
            "the connection was made, and closed at once".into(),
        )),
        Outcome::Refused(error) => Some((
            Layer::Application,
            format!("nothing takes connections there: {error}"),
        )),
        Outcome::Silent => Some((Layer::Endpoint, "nobody answers at this address".into())),
    })
}

/// The layer that an access log's line blames.
fn of_line(line: &Line) -> Option<(Layer, String)> {
    let reason = line.get("reason").to_owned();
    let layer = match (line.get("layer"), line.get("response_flags")) {
        ("", _) => return None,
        ("policy", _) => Layer::Policy,
        ("redirection", _) => Layer::Redirection,
        ("application", _) if reason.contains("no healthy endpoint") => Layer::Endpoint,
        ("application", _) => Layer::Application,
        (_, "TLS_FAILURE" | "IDENTITY_ERROR") => Layer::Certificate,
        _ => Layer::Plane,
    };
    Some((layer, reason))
}

/// Prints the answer.
pub(crate) fn print(why: &Why, format: Format) -> anyhow::Result<()> {
    format.print(why, || render(why))
}

fn render(why: &Why) -> String {
    let mut table = Table::new(&["LAYER", "OF", "", "WHAT IS HELD"]);
    for finding in &why.findings {
        let mark = if finding.well {
            toned(Tone::Good, "ok")
        } else {
            toned(Tone::Bad, "fault")
        };
        table.row([
            finding.layer.name().into(),
            finding.of.clone(),
            mark,
            finding.detail.clone(),
        ]);
    }
    let verdict = match why.layer {
        None => toned(Tone::Good, &format!("{} reaches {}", why.client, why.server)),
        Some(layer) => toned(
            Tone::Bad,
            &format!("{} → {}: {}", why.client, why.server, layer.name()),
        ),
    };
    let remedy = why
        .remedy
        .map_or_else(String::new, |remedy| format!("\nremedy: {remedy}"));
    format!("{}\n{verdict}: {}{remedy}", table.render(), why.reason)
}
