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
use trefoil_api::question::{Leaving, Probed};

use crate::output::{Format, Table, Tone, causes, toned};
use crate::planes::Planes;
use ends::End;
use findings::Finding;
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

/// Finds out.
pub(crate) async fn why(planes: &Planes, client: &str, server: &str) -> anyhow::Result<Why> {
    let client = End::pod(planes, client).await?;
    let target = Target::find(planes, server, &client.namespace).await?;
    let of_client = findings::of_end(planes, &client).await;
    let mut findings = of_client.findings;
    let route = match &of_client.plane {
        Some(plane) => {
            let (route, finding) = foretold::route(planes, &client, plane, &target).await;
            findings.push(finding);
            route
        }
        None => None,
    };
    findings.push(findings::of_target(&target));
    let server = foretold::server(&target, route.as_ref());
    let mut arrival = None;
    if let Some(server) = server {
        let of_server = findings::of_end(planes, &server.0).await;
        findings.extend(of_server.findings);
        if let Some(plane) = of_server.plane
            && let Some(arriving) = foretold::arriving(&client, route.as_ref(), server)
        {
            findings.push(foretold::evaluation(planes, &server.0, &plane, &arriving).await);
            arrival = Some((plane, arriving));
        }
    }
    let probed = match (of_client.plane, target.address, &arrival) {
        (Some(plane), Some(destination), _) => {
            let workload = client.workload.clone();
            let question = Leaving {
                workload,
                destination,
            };
            Some(probe::leave(planes, &plane, &question).await)
        }
        (None, _, Some((plane, arriving))) if !of_client.meshed => {
            Some(probe::arrive(planes, plane, arriving).await)
        }
        _ => None,
    };
    let probed = probed.map(|probed| probed.map_err(|error| causes(&error)));
    let Verdict { layer, reason } = judge(&findings, probed.as_ref());
    let refused_for_want_of_identity = layer == Some(Layer::Policy)
        && !of_client.meshed
        && arrival.is_some_and(|(_, arriving)| arriving.identity.is_none());
    let remedy = match layer {
        Some(_) if refused_for_want_of_identity => Some(Layer::identity(&client)),
        layer => layer.map(|layer| layer.remedy().to_owned()),
    };
    Ok(Why {
        client: client.name,
        server: target.name,
        destination: target
            .address
            .map_or_else(String::new, |address| address.to_string()),
        well: layer.is_none(),
        layer,
        reason,
        remedy,
        findings,
        probe: probed.and_then(Result::ok),
    })
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
