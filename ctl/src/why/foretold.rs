//! What the planes would do with the connection, by what they hold: the client's plane, where it would carry
//! it; the server's, whether it would let it in.

use trefoil_api::question::{Arriving, Evaluation, Leaving, Route};

use super::Layer;
use super::ends::End;
use super::findings::{Finding, finding};
use super::judge::layer_of;
use super::target::Target;
use crate::planes::{Plane, Planes};
use trefoil_local::causes::causes;

/// What the client's plane says.
pub(super) async fn route(
    planes: &Planes,
    client: &End,
    plane: &Plane,
    target: &Target,
) -> (Option<Route>, Finding) {
    let Some(destination) = target.address else {
        let nowhere = finding(Layer::Endpoint, client, false, "there is no address to dial");
        return (None, nowhere);
    };
    let question = Leaving {
        workload: client.workload.clone(),
        destination,
    };
    let question = format!("route?{}", question.query());
    match plane.question::<Route>(planes, "GET", &question).await {
        Err(error) => (None, finding(Layer::Plane, client, false, causes(&error))),
        Ok(route) => {
            let finding = match &route.fault {
                Some(fault) => finding(layer_of(fault), client, false, &fault.reason),
                None => finding(Layer::Plane, client, true, way(&route)),
            };
            (Some(route), finding)
        }
    }
}

/// A way in words.
fn way(route: &Route) -> String {
    let to = route
        .address
        .map_or_else(String::new, |address| address.to_string());
    match (route.path.as_str(), route.next_hop) {
        ("mutual_tls", Some(hop)) => format!(
            "carries it to {to} through the plane at {hop}, as {}",
            route.identity
        ),
        ("same_node", _) => format!("carries it to {to} on the same node, as {}", route.identity),
        _ => format!("passes it on to {to} in the clear"),
    }
}

/// The server that the connection would reach, and where.
pub(super) fn server<'t>(
    target: &'t Target,
    route: Option<&Route>,
) -> Option<&'t (End, std::net::SocketAddr)> {
    let chosen = route.and_then(|route| route.workload.as_ref());
    let chosen = chosen.and_then(|uid| target.behind.iter().find(|(end, _)| end.workload == *uid));
    chosen.or_else(|| target.behind.first())
}

/// How the connection would arrive: with the client's identity only where its plane proves it.
pub(super) fn arriving(
    client: &End,
    route: Option<&Route>,
    (server, address): &(End, std::net::SocketAddr),
) -> Option<Arriving> {
    let proven = route.filter(|route| route.path != "none");
    Some(Arriving {
        workload: server.workload.clone(),
        identity: proven.map(|route| route.identity.clone()),
        source: route.and_then(|route| route.source).or(client.address)?,
        destination: proven.and_then(|route| route.address).unwrap_or(*address),
    })
}

/// What the server's plane says.
pub(super) async fn evaluation(planes: &Planes, server: &End, plane: &Plane, arriving: &Arriving) -> Finding {
    let question = format!("evaluate?{}", arriving.query());
    let evaluation = match plane.question::<Evaluation>(planes, "GET", &question).await {
        Err(error) => return finding(Layer::Plane, server, false, causes(&error)),
        Ok(evaluation) => evaluation,
    };
    let who = arriving
        .identity
        .as_deref()
        .unwrap_or("a client without an identity");
    let audit = match evaluation.audit.as_slice() {
        [] => String::new(),
        audit => format!("; under audit, {} would not", audit.join(", ")),
    };
    match &evaluation.fault {
        Some(fault) => finding(
            layer_of(fault),
            server,
            false,
            format!("refuses {who}: {}", fault.reason),
        ),
        None => finding(
            Layer::Policy,
            server,
            true,
            format!("lets {who} in: {}{audit}", evaluation.reason),
        ),
    }
}
