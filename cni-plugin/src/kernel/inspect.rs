//! What redirects a pod now, read from the kernel: never from what anybody remembers.

use std::os::fd::AsFd;

use nlink::netlink::nftables::{Family, Item, RuleInfo, Stmt};
use nlink::netlink::{Connection, Nftables};
use trefoil_api::names::port;
use trefoil_api::proto::trefoil::v1::Plane;

use super::KernelError;
use crate::namespace::Namespace;
use crate::redirection::{self, INBOUND, OUTBOUND, POD_TABLE, PlanePorts};

/// What redirects a pod's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// The plane that new connections enter in both directions; `None` if neither direction is redirected,
    /// `Unspecified` if the rules are not those of any plane.
    pub plane: Plane,
    /// The table exists: the pod is, or was, in the mesh.
    pub enrolled: bool,
    /// Port that outbound connections are redirected to.
    pub outbound: Option<u16>,
    /// Port that inbound connections are redirected to.
    pub inbound: Option<u16>,
    /// The rules as the kernel lists them, chain and rule.
    pub rules: Vec<(String, String)>,
}

/// Reads what redirects the traffic of a namespace. Changes nothing.
pub async fn inspect(namespace: &Namespace) -> Result<Redirection, KernelError> {
    let connection = Connection::<Nftables>::new_in(namespace.as_fd())?;
    let tables = connection.list_tables_in(Family::Inet).await?;
    let enrolled = tables.iter().any(|table| table.name == POD_TABLE);
    let rules = if enrolled {
        connection.list_rules(POD_TABLE, Family::Inet).await?
    } else {
        Vec::new()
    };
    let outbound = target(&rules, OUTBOUND);
    let inbound = target(&rules, INBOUND);
    Ok(Redirection {
        plane: plane(outbound, inbound),
        enrolled,
        outbound,
        inbound,
        rules: rules.iter().map(printed).collect(),
    })
}

/// The port that a chain redirects to, besides HBONE's own.
fn target(rules: &[RuleInfo], chain: &str) -> Option<u16> {
    let mut ports = rules
        .iter()
        .filter(|rule| rule.chain == chain)
        .filter_map(redirects_to);
    ports.rfind(|&port| port != port::SIDECAR_HBONE)
}

fn redirects_to(rule: &RuleInfo) -> Option<u16> {
    rule.spec().items().iter().find_map(|item| match item {
        Item::Stmt(Stmt::Redirect(port)) => *port,
        _ => None,
    })
}

fn plane(outbound: Option<u16>, inbound: Option<u16>) -> Plane {
    if outbound.is_none() && inbound.is_none() {
        return Plane::None;
    }
    let is = |plane: &Plane| {
        PlanePorts::of(*plane)
            .is_some_and(|ports| outbound == Some(ports.outbound) && inbound == Some(ports.inbound))
    };
    [Plane::Node, Plane::Sidecar]
        .into_iter()
        .find(is)
        .unwrap_or(Plane::Unspecified)
}

fn printed(rule: &RuleInfo) -> (String, String) {
    let text = redirection::text(&rule.spec()).unwrap_or_else(|| "(not understood)".into());
    (rule.chain.clone(), text)
}
