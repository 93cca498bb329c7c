//! The routing rule and the routes that bring replies of source-preserving connections back to the proxy.
//! They are added once and stay until the pod ends.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use nlink::netlink::route::{Ipv4Route, Ipv6Route};
use nlink::netlink::rule::RuleBuilder;
use nlink::netlink::types::route::{RouteScope, RouteType};
use nlink::netlink::{Connection, Route};
use trefoil_api::names::mark;

use super::KernelError;
use crate::namespace::Namespace;
use crate::redirection::{ROUTE_PREFERENCE, ROUTE_TABLE};

/// Index of `lo` in every namespace.
const LOOPBACK: u32 = 1;

/// Adds what is missing. Loopback is brought up: nothing is redirected without it.
pub(super) async fn install_routing(namespace: &Namespace) -> Result<(), KernelError> {
    let connection = Connection::<Route>::new_in(namespace.as_fd())?;
    connection.set_link_up(LOOPBACK).await?;
    let rules = connection.get_rules().await?;
    let ruled = |v6: bool| {
        let mut rules = rules.iter();
        rules.any(|rule| {
            let place = (rule.priority(), rule.table(), rule.is_ipv6());
            place == (ROUTE_PREFERENCE, ROUTE_TABLE, v6) && rule.fwmark() == Some(mark::SOURCE_PRESERVED)
        })
    };
    let routes = connection.get_routes_for_table(ROUTE_TABLE).await?;
    let routed = |v6: bool| routes.iter().any(|route| route.is_ipv6() == v6);
    if !ruled(false) {
        present(connection.add_rule(marked(RuleBuilder::v4())).await)?;
    }
    if !routed(false) {
        let route = Ipv4Route::from_addr(Ipv4Addr::UNSPECIFIED, 0)
            .dev_index(LOOPBACK)
            .route_type(RouteType::Local)
            .scope(RouteScope::Host)
            .table(ROUTE_TABLE);
        present(connection.add_route(route).await)?;
    }
    if !namespace.has_ipv6()? {
        return Ok(());
    }
    if !ruled(true) {
        present(connection.add_rule(marked(RuleBuilder::v6())).await)?;
    }
    if !routed(true) {
        let route = Ipv6Route::from_addr(Ipv6Addr::UNSPECIFIED, 0)
            .dev_index(LOOPBACK)
            .route_type(RouteType::Local)
            .table(ROUTE_TABLE);
        present(connection.add_route(route).await)?;
    }
    Ok(())
}

fn marked(rule: RuleBuilder) -> RuleBuilder {
    rule.fwmark_mask(mark::SOURCE_PRESERVED, mark::MASK)
        .priority(ROUTE_PREFERENCE)
        .table(ROUTE_TABLE)
}

/// Somebody else may have been quicker.
fn present(added: nlink::Result<()>) -> nlink::Result<()> {
    match added {
        Err(error) if error.is_already_exists() => Ok(()),
        other => other,
    }
}
