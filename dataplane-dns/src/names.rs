//! Which names are known, and what they lead to. Pure. It knows names of the cluster only, and of those only what it
//! can answer as cluster DNS would; where it cannot be sure, it knows nothing.

use std::net::IpAddr;

use trefoil_dataplane_state::state::{Service, Snapshot, Workload};

#[cfg(test)]
mod tests;

/// Seconds for which virtual addresses may be remembered: they stay for as long as their service.
pub const STABLE: u32 = 30;
/// Seconds for which addresses of pods may be remembered.
pub const CHANGING: u32 = 5;

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Addresses of both families, at least one.
    pub addresses: Vec<IpAddr>,
    /// Seconds for which they may be remembered.
    pub lifetime: u32,
}

/// What is known of a name, given in lower case and without its last dot. None: ask somebody else.
#[must_use]
pub fn find(known: &Snapshot, name: &str) -> Option<Found> {
    if let Some(service) = service(known, name) {
        return of_service(known, &service);
    }
    let (_, subdomain) = name.split_once('.')?;
    let headless = service(known, subdomain).filter(|service| service.addresses.is_empty())?;
    let key = headless.key();
    let named = known.endpoints(&key).filter(|workload| workload.hostname == name);
    found(named, &headless)
}

/// The service of this name, in the one namespace that may give it.
fn service(known: &Snapshot, name: &str) -> Option<std::sync::Arc<Service>> {
    let mut labels = name.split('.');
    let namespace = labels.nth(1)?;
    let service = known.service_named(name, namespace)?;
    (service.namespace == namespace).then_some(service)
}

fn of_service(known: &Snapshot, service: &Service) -> Option<Found> {
    if service.addresses.is_empty() {
        return found(known.endpoints(&service.key()), service);
    }
    Some(Found {
        addresses: service.addresses.clone(),
        lifetime: STABLE,
    })
}

/// The addresses of endpoints. A headless service without any exists, or does not: cluster DNS knows.
fn found<'w>(
    endpoints: impl Iterator<Item = &'w std::sync::Arc<Workload>>,
    service: &Service,
) -> Option<Found> {
    let unready = service.load_balancing.allow_unhealthy;
    let addresses: Vec<IpAddr> = endpoints
        .filter(|workload| workload.healthy || unready)
        .flat_map(|workload| workload.addresses.iter().copied())
        .filter(|address| match service.families {
            Some((v4, v6)) => (address.is_ipv4() && v4) || (address.is_ipv6() && v6),
            None => true,
        })
        .collect();
    (!addresses.is_empty()).then_some(Found {
        addresses,
        lifetime: CHANGING,
    })
}
