//! What becomes of a connection that has reached the plane of a workload that has a guard. Pure: it neither
//! believes anybody nor decides about policy.

use trefoil_api::Identity;

use crate::identify::Peer;
use trefoil_dataplane_state::state::{Guard, Workload};

#[cfg(test)]
mod tests;

/// What a workload's plane does with a connection to the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course<'w> {
    /// Decides about it.
    Decide,
    /// Hands it to the waypoint that it has skipped, which decides and sends it back.
    HandOver {
        /// Who the waypoint is.
        identity: &'w Identity,
        /// Its service.
        service: &'w str,
    },
}

/// What the plane of `server` does with a connection of `peer`. That nobody passes a closed guard is decided
/// where policy is.
#[must_use]
pub fn course<'w>(server: &'w Workload, peer: &Peer) -> Course<'w> {
    match &server.guard {
        Some(Guard::Waypoint { identity, service }) if !forwarded_by(peer, identity) => {
            Course::HandOver { identity, service }
        }
        Some(Guard::Waypoint { .. } | Guard::Closed(_)) | None => Course::Decide,
    }
}

/// Whether the waypoint, whose own workload this is, guards `server`.
#[must_use]
pub fn guards(waypoint: &Workload, server: &Workload) -> bool {
    match &server.guard {
        Some(Guard::Waypoint { identity, service }) => {
            *identity == waypoint.identity && waypoint.services.contains_key(service)
        }
        Some(Guard::Closed(_)) | None => false,
    }
}

/// Whether it is the word of a guard that tells who the client is.
pub(crate) fn forwarded_by(peer: &Peer, guard: &Identity) -> bool {
    matches!(peer, Peer::Forwarded { by, .. } if by == guard)
}
