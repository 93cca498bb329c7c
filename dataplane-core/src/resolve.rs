//! Where a captured connection goes. Pure: what is known in, a target out; randomness is passed in.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::Rng;

use crate::balance::{Endpoint, choose, choose_waypoint};
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::{Mode, Service, Snapshot, Workload};

#[cfg(test)]
mod tests;

/// Where a captured connection goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// To a workload that is known.
    Workload {
        /// The workload.
        workload: Arc<Workload>,
        /// Its address and the port that it listens on.
        address: SocketAddr,
        /// The service that was dialled, if it was one.
        service: Option<Arc<Service>>,
    },
    /// Through a waypoint, which serves what was dialled.
    Waypoint {
        /// The waypoint's service.
        waypoint: String,
        /// The waypoint that is tried first, and its listener.
        first: Endpoint,
        /// What was dialled.
        dialled: Dialled,
    },
    /// A waypoint serves what was dialled, and none of its endpoints may be chosen.
    NoWaypoint {
        /// The waypoint's service.
        waypoint: String,
        /// What was dialled.
        dialled: Dialled,
    },
    /// As it was: an address that is not known, or the client's own.
    Passthrough(SocketAddr),
    /// The service has no endpoint that may be chosen.
    NoEndpoint {
        /// The service that was dialled.
        service: Arc<Service>,
    },
    /// Not known, and only what is known may be reached; or of the mesh, but never understood.
    Refused,
}

/// What a client dialled that a waypoint serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialled {
    /// As it was dialled.
    pub address: SocketAddr,
    /// The service whose address it is, if it is one's.
    pub service: Option<Arc<Service>>,
    /// The workload whose address it is, if it is one's.
    pub workload: Option<Arc<Workload>>,
}

/// Decides where the connection of `client` to `destination` goes.
pub fn resolve(store: &Store, client: &Workload, destination: SocketAddr, random: &mut impl Rng) -> Target {
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    if client.addresses.contains(&destination.ip()) {
        return Target::Passthrough(destination);
    }
    let known = store.snapshot();
    let mut through = |waypoint: &str, service, workload| {
        let dialled = Dialled {
            address: destination,
            service,
            workload,
        };
        match choose_waypoint(&known, waypoint, &[client.into()], destination.ip(), &[], random) {
            Some(first) => Target::Waypoint {
                waypoint: waypoint.to_owned(),
                first,
                dialled,
            },
            None => Target::NoWaypoint {
                waypoint: waypoint.to_owned(),
                dialled,
            },
        }
    };
    let Some(service) = known.service_at(destination.ip()) else {
        return match known.workload_at(destination.ip()) {
            Some(workload) => match workload.waypoint.clone() {
                Some(waypoint) => through(&waypoint, None, Some(workload)),
                None => Target::Workload {
                    workload,
                    address: destination,
                    service: None,
                },
            },
            None if known.is_unread(destination.ip()) || known.registry_only() => Target::Refused,
            None => Target::Passthrough(destination),
        };
    };
    if let Some(waypoint) = &service.waypoint {
        return through(waypoint, Some(service.clone()), None);
    }
    if service.load_balancing.mode == Mode::Passthrough {
        return Target::Passthrough(destination);
    }
    match choose(&known, &service, &[client.into()], destination, random) {
        None => Target::NoEndpoint { service },
        // A workload dialling itself is never tunnelled, whatever the way.
        Some(chosen) if chosen.workload.uid == client.uid => Target::Passthrough(chosen.address),
        Some(chosen) => Target::Workload {
            workload: chosen.workload,
            address: chosen.address,
            service: Some(service),
        },
    }
}

/// What `client` dialled, where requests to it may come that are its own plane's to read: a service, of which that
/// chooses an endpoint for each, or an endpoint. None: it is bytes, or a waypoint reads them, unless the client has
/// routes of its own for it (`routed`).
pub fn requests_to(
    known: &Snapshot,
    client: &Workload,
    destination: SocketAddr,
    routed: impl FnOnce(&Service) -> bool,
) -> Option<(Option<Arc<Service>>, Option<Endpoint>)> {
    let address = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    if client.addresses.contains(&address.ip()) {
        return None;
    }
    if let Some(service) = known.service_at(address.ip()) {
        let http = service.declared(address.port())?.may_be_http();
        let passes = service.load_balancing.mode == Mode::Passthrough;
        let ours = http && !passes && (service.waypoint.is_none() || routed(&service));
        return ours.then_some((Some(service), None));
    }
    let workload = known.workload_at(address.ip())?;
    let http = workload.declared(address.port()).may_be_http();
    (http && workload.waypoint.is_none()).then_some((None, Some(Endpoint { workload, address })))
}
