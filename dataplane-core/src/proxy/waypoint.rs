//! The hop to a waypoint, from either end of a connection. One of its endpoints that is not reached is passed
//! over for another: nothing was said to it yet.

use std::net::{IpAddr, SocketAddr};

use trefoil_api::Identity;

use super::Proxy;
use super::failure::Failure;
use super::pod::Served;
use crate::balance::{Endpoint, choose_waypoint};
use crate::forward::Side;
use crate::hbone::{OpenError, Opening};
use trefoil_dataplane_state::state::Workload;

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
fn another(proxy: &Proxy, own: &Workload, service: &str, like: IpAddr, but: &[String]) -> Option<Endpoint> {
    let known = proxy.store.snapshot();
    choose_waypoint(&known, service, &[own.into()], like, but, &mut rand::rng())
}

/// A stream of a tunnel to a waypoint; `tunnel` is the address that was tried last.
pub(super) async fn open(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    to: To<'_>,
    opening: &Opening<'_>,
    tunnel: &mut Option<SocketAddr>,
) -> Result<Side, OpenError> {
    let (mut endpoint, mut tried) = (to.first, Vec::new());
    loop {
        *tunnel = Some(endpoint.address);
        let expected = to
            .expected
            .map_or_else(|| endpoint.expected(None), |one| vec![one.clone()]);
        let error = match pod.open(proxy, endpoint.address, &expected, opening).await {
            Ok(stream) => return Ok(Side::Tunnel(stream)),
            Err(error) => error,
        };
        if !matches!(error, OpenError::Connect(_)) {
            return Err(error);
        }
        tried.push(endpoint.workload.uid.clone());
        endpoint = match another(proxy, own, to.service, endpoint.address.ip(), &tried) {
            Some(other) => other,
            None => return Err(error),
        };
    }
}

/// The same to the waypoint of this identity and service, which guards what `opening` asks for.
pub(super) async fn open_guard(
    proxy: &Proxy,
    pod: &Served,
    own: &Workload,
    (identity, service): (&Identity, &str),
    opening: &Opening<'_>,
    tunnel: &mut Option<SocketAddr>,
) -> Result<Side, Failure> {
    let first = another(proxy, own, service, opening.destination.ip(), &[]);
    let to = To {
        service,
        first: first.ok_or_else(|| Failure::NoWaypoint(service.to_owned()))?,
        expected: Some(identity),
    };
    let opened = open(proxy, pod, own, to, opening, tunnel).await;
    opened.map_err(Failure::Waypoint)
}
