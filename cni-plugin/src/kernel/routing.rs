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
pub async fn install_routing(namespace: &Namespace) -> Result<(), KernelError> {
    let connection = Connection::<Route>::new_in(namespace.as_fd())?;
    connection.set_link_up(LOOPBACK).await?;
    present(connection.add_rule(marked(RuleBuilder::v4())).await)?;
    let route = Ipv4Route::from_addr(Ipv4Addr::UNSPECIFIED, 0)
        .dev_index(LOOPBACK)
        .route_type(RouteType::Local)
        .scope(RouteScope::Host)
        .table(ROUTE_TABLE);
    present(connection.add_route(route).await)?;
    if namespace.has_ipv6()? {
        present(connection.add_rule(marked(RuleBuilder::v6())).await)?;
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

fn present(added: nlink::Result<()>) -> nlink::Result<()> {
    match added {
        Err(error) if error.is_already_exists() => Ok(()),
        other => other,
    }
}
