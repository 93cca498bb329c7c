//! The hop to a waypoint, from either end of a connection. One of its endpoints that is not reached is passed
//! over for another: nothing was said to it yet.

use std::net::IpAddr;

use trefoil_api::Identity;

use super::Proxy;
use super::pod::Served;
use crate::balance::{Endpoint, choose_waypoint};
use crate::forward::Side;
use crate::hbone::{OpenError, Opening};
use crate::state::Workload;
use crate::telemetry::Record;

/// A waypoint.
pub(super) struct To<'a> {
    /// Its service.
    pub(super) service: &'a str,
    /// The endpoint that is tried first.
    pub(super) first: Endpoint,
    /// Who each of its endpoints must be, where it is not for their workloads to say.
    pub(super) expected: Option<&'a Identity>,
}

/// An endpoint of a waypoint, but none of these.
pub(super) fn another(
    proxy: &Proxy,
    own: &Workload,
    service: &str,
    like: IpAddr,
    but: &[String],
) -> Option<Endpoint> {
    let known = proxy.store.snapshot();
    choose_waypoint(&known, service, &[own.into()], like, but, &mut rand::rng())
}

/// A stream of a tunnel to a waypoint.
pub(super) async fn open(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    to: To<'_>,
    opening: &Opening<'_>,
    record: &mut Record,
) -> Result<Side, OpenError> {
    let (mut endpoint, mut tried) = (to.first, Vec::new());
    loop {
        record.tunnel_address = Some(endpoint.address);
        let expected = to
            .expected
            .map_or_else(|| endpoint.expected(None), |one| vec![one.clone()]);
        let error = match pod.open(proxy, endpoint.address, &expected, opening).await {
            Ok(stream) => return Ok(Side::Tunnel(stream)),
            Err(error) => error,
        };
        tried.push(endpoint.workload.uid.clone());
        let other = another(proxy, own, to.service, endpoint.address.ip(), &tried);
        endpoint = match other.filter(|_| matches!(error, OpenError::Connect(_))) {
            Some(other) => other,
            None => return Err(error),
        };
    }
}
