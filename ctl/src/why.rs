//! `why CLIENT SERVER[:PORT]`: does it work, and if not, which one layer is at fault. It asks the planes what
//! they hold and what they would do with the connection, then has them make it and asks what became of it.
//! It decides nothing for them.

mod ends;
mod findings;
mod foretold;
mod judge;
mod probe;
mod target;

use serde::Serialize;
use trefoil_api::question::{Arriving, Leaving, Probed};
use trefoil_local::causes::causes;

use crate::output::{Format, Table, Tone, toned};
use crate::planes::{Plane, Planes};
use ends::End;
use findings::{Finding, Held};
use judge::{Verdict, judge};
use target::Target;

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
    remedy: Option<String>,
    findings: Vec<Finding>,
    probe: Option<Probed>,
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

    /// Of a policy that refuses a client for having no identity.
    fn identity(client: &End) -> String {
        let namespace = &client.namespace;
        format!(
            "{} has no plane and so no identity: give its namespace one with `trefoilctl label namespace {namespace} \
             trefoil.dev/dataplane-mode=ambient`; or let the server take plaintext (PeerAuthentication Permissive)",
            client.name
        )
    }
}

/// What the planes hold and foretell.
struct Foretold {
    findings: Vec<Finding>,
    /// The client's plane, if it answers.
    at_client: Option<Plane>,
    /// The client has a plane, be it well or not.
    meshed: bool,
    /// The server's plane, if it answers, and how the connection would arrive there.
    arrival: Option<(Plane, Arriving)>,
}

/// Finds out.
pub(crate) async fn why(planes: &Planes, client: &str, server: &str) -> anyhow::Result<Why> {
    let client = End::pod(planes, client).await?;
    let target = Target::find(planes, server, &client.namespace).await?;
    let foretold = foretell(planes, &client, &target).await;
    let probed = tried(planes, &client, &target, &foretold).await;
    let Verdict { layer, reason } = judge(&foretold.findings, probed.as_ref());
    Ok(Why {
        remedy: layer.map(|layer| remedy(layer, &client, &foretold)),
        client: client.name,
        server: target.name,
        destination: target
            .address
            .map_or_else(String::new, |address| address.to_string()),
        well: layer.is_none(),
        layer,
        reason,
        findings: foretold.findings,
        probe: probed.and_then(Result::ok),
    })
}

/// Asks, from the client on, what is held and what would become of the connection.
async fn foretell(planes: &Planes, client: &End, target: &Target) -> Foretold {
    let Held {
        mut findings,
        plane: at_client,
        meshed,
    } = findings::of_end(planes, client).await;
    let mut route = None;
    if let Some(plane) = &at_client {
        let (said, finding) = foretold::route(planes, client, plane, target).await;
        findings.push(finding);
        route = said;
    }
    findings.push(findings::of_target(target));
    let mut arrival = None;
    if let Some(server) = foretold::server(target, route.as_ref()) {
        let held = findings::of_end(planes, &server.0).await;
        findings.extend(held.findings);
        if let Some(plane) = held.plane
            && let Some(arriving) = foretold::arriving(client, route.as_ref(), server)
        {
            findings.push(foretold::evaluation(planes, &server.0, &plane, &arriving).await);
            arrival = Some((plane, arriving));
        }
    }
    Foretold {
        findings,
        at_client,
        meshed,
        arrival,
    }
}

/// A real connection, where there is a plane that can make it.
async fn tried(
    planes: &Planes,
    client: &End,
    target: &Target,
    foretold: &Foretold,
) -> Option<Result<Probed, String>> {
    let probed = match (&foretold.at_client, target.address, &foretold.arrival) {
        (Some(plane), Some(destination), _) => {
            let workload = client.workload.clone();
            let question = Leaving {
                workload,
                destination,
            };
            probe::leave(planes, plane, &question).await
        }
        (None, _, Some((plane, arriving))) if !foretold.meshed => {
            probe::arrive(planes, plane, arriving).await
        }
        _ => return None,
    };
    Some(probed.map_err(|error| causes(&error)))
}

fn remedy(layer: Layer, client: &End, foretold: &Foretold) -> String {
    let anonymous = foretold
        .arrival
        .as_ref()
        .is_some_and(|(_, arriving)| arriving.identity.is_none());
    if layer == Layer::Policy && !foretold.meshed && anonymous {
        return Layer::identity(client);
    }
    layer.remedy().to_owned()
}

/// What is held wrongly about any pod of the mesh.
pub(crate) async fn faults(planes: &Planes) -> anyhow::Result<Vec<String>> {
    let ends = End::enrolled(planes).await?;
    let held = futures::future::join_all(ends.iter().map(|end| findings::of_end(planes, end))).await;
    let wrong = held
        .into_iter()
        .flat_map(|held| held.findings)
        .filter(|finding| !finding.well);
    Ok(wrong
        .map(|finding| format!("pod {}: {}: {}", finding.of, finding.layer.name(), finding.detail))
        .collect())
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
        .as_ref()
        .map_or_else(String::new, |remedy| format!("\nremedy: {remedy}"));
    format!("{}\n{verdict}: {}{remedy}", table.render(), why.reason)
}
