//! The choice of an endpoint: the nearest ones by the service's preference, among them by capacity and
//! chance. Pure: randomness is passed in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use crate::state::{Mode, Scope, Service, Snapshot, Workload};

#[cfg(test)]
mod tests;

/// A chosen endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its address and the port that it listens on.
    pub address: SocketAddr,
}

/// What the mesh prefers where a service does not say: same node, zone, region, each falling back.
const NEAREST: [Scope; 3] = [Scope::Region, Scope::Zone, Scope::Node];

/// Chooses an endpoint of `service` for a client that dialled `destination`, one of its virtual addresses.
/// None where no endpoint may be chosen.
pub fn choose(
    known: &Snapshot,
    service: &Service,
    client: &Workload,
    destination: SocketAddr,
    random: &mut impl Rng,
) -> Option<Endpoint> {
    let preference: &[Scope] = match service.load_balancing.mode {
        Mode::Unspecified if service.load_balancing.preference.is_empty() => &NEAREST,
        _ => &service.load_balancing.preference,
    };
    let strict = service.load_balancing.mode == Mode::Strict;
    let key = service.key();
    let mut best = Best::default();
    for workload in known.endpoints(&key) {
        let Some(address) = endpoint_address(service, &key, workload, destination) else {
            continue;
        };
        let near = rank(preference, client, workload);
        if strict && near < preference.len() {
            continue;
        }
        best.offer(
            near,
            Endpoint {
                workload: workload.clone(),
                address,
            },
            random,
        );
    }
    best.endpoint
}

/// The best endpoint so far, chosen with the chance that its capacity gives it among its equals.
#[derive(Default)]
struct Best {
    near: usize,
    weight: u64,
    endpoint: Option<Endpoint>,
}

impl Best {
    fn offer(&mut self, near: usize, endpoint: Endpoint, random: &mut impl Rng) {
        let weight = u64::from(endpoint.workload.capacity);
        if self.endpoint.is_none() || near > self.near {
            *self = Self {
                near,
                weight,
                endpoint: Some(endpoint),
            };
            return;
        }
        if near < self.near {
            return;
        }
        self.weight += weight;
        if random.random_range(0..self.weight) < weight {
            self.endpoint = Some(endpoint);
        }
    }
}

/// How many of the preferences hold, in their order: the first that does not ends the count.
fn rank(preference: &[Scope], client: &Workload, endpoint: &Workload) -> usize {
    preference
        .iter()
        .take_while(|scope| same(**scope, client, endpoint))
        .count()
}

fn same(scope: Scope, client: &Workload, endpoint: &Workload) -> bool {
    let (ours, theirs) = (&client.locality, &endpoint.locality);
    match scope {
        Scope::Region => ours.region == theirs.region,
        Scope::Zone => ours.zone == theirs.zone,
        Scope::Subzone => ours.subzone == theirs.subzone,
        Scope::Node => client.node == endpoint.node,
        Scope::Cluster => client.cluster == endpoint.cluster,
        // Everything that is understood is on the local network.
        Scope::Network => true,
    }
}

/// Where the endpoint listens for what was dialled; none where it may not be chosen.
fn endpoint_address(
    service: &Service,
    key: &str,
    workload: &Workload,
    destination: SocketAddr,
) -> Option<SocketAddr> {
    let usable = workload.healthy || service.load_balancing.allow_unhealthy;
    if !usable || workload.capacity == 0 {
        return None;
    }
    let ports = workload.services.get(key)?;
    let mapping = ports
        .iter()
        .find(|port| port.service_port == destination.port())?;
    let ip = address_like(destination.ip(), &workload.addresses)?;
    Some(SocketAddr::new(ip, mapping.target_port?))
}

/// An address of the family that was dialled, else whichever there is.
fn address_like(dialled: IpAddr, addresses: &[IpAddr]) -> Option<IpAddr> {
    let same_family = |address: &&IpAddr| address.is_ipv4() == dialled.is_ipv4();
    addresses.iter().find(same_family).or(addresses.first()).copied()
}
