//! What a stream is for, and whether this waypoint serves it. Pure: what is known in, a target or a refusal out.

use std::net::SocketAddr;
use std::sync::Arc;

use trefoil_dataplane_core::balance::Endpoint;
use trefoil_dataplane_core::guard::guards;
use trefoil_dataplane_core::hbone::Destination;
use trefoil_dataplane_core::proxy::Failure;
use trefoil_dataplane_state::state::{Protocol, Service, Snapshot, Workload};

#[cfg(test)]
mod tests;

/// What a stream is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A service: one of its endpoints is chosen.
    Service {
        /// The service.
        service: Arc<Service>,
        /// What was dialled: an address of it, where it has one, and a port.
        address: SocketAddr,
    },
    /// This very endpoint: it gets policy, and is never routed or balanced anew.
    Workload(Endpoint),
}

impl Target {
    /// What the dialled port is declared to speak, by any service of it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Service { service, address } => {
                service.declared(address.port()).unwrap_or(Protocol::Unknown)
            }
            Self::Workload(endpoint) => endpoint.workload.declared(endpoint.address.port()),
        }
    }
}

/// What `asked` is for, at the waypoint whose own workload is `own`.
pub fn target(known: &Snapshot, own: &Workload, asked: &Destination) -> Result<Target, Failure> {
    let ours = |waypoint: &Option<String>| {
        let ours = |key| own.services.contains_key(key);
        waypoint.as_ref().is_some_and(ours)
    };
    let service = |service: Arc<Service>, address| {
        ours(&service.waypoint).then_some(Target::Service { service, address })
    };
    let target = match asked {
        Destination::Address(address) => match known.service_at(address.ip()) {
            Some(dialled) => service(dialled, *address),
            None => known
                .workload_at(address.ip())
                .filter(|workload| ours(&workload.waypoint) || guards(own, workload))
                .map(|workload| {
                    let address = *address;
                    Target::Workload(Endpoint { workload, address })
                }),
        },
        Destination::Service(host, port) => {
            let dialled = known.service_named(host, &own.namespace);
            dialled.and_then(|dialled| {
                // Its port alone says what is dialled; the address only of which family it is.
                let own_address = own.addresses.first();
                let ip = *dialled.addresses.first().or(own_address)?;
                service(dialled, SocketAddr::new(ip, *port))
            })
        }
    };
    target.ok_or_else(|| {
        Failure::NotServed(match asked {
            Destination::Address(address) => address.to_string(),
            Destination::Service(host, port) => format!("{host}:{port}"),
        })
    })
}
