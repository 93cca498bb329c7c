//! The choice of an endpoint: the nearest ones by the service's preference, among them by capacity and
//! chance. Pure: randomness is passed in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use trefoil_api::Identity;
use trefoil_api::names::port;

use trefoil_dataplane_state::state::{Locality, Mode, Scope, Service, Snapshot, Workload};

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

impl Endpoint {
    /// Where its plane takes tunnels.
    #[must_use]
    pub fn plane(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), port::HBONE)
    }

    /// Who its plane may be: the workload, or whom the service that it was chosen for names beside its endpoints'
    /// own.
    #[must_use]
    pub fn expected(&self, service: Option<&Service>) -> Vec<Identity> {
        let mut expected = vec![self.workload.identity.clone()];
        let named = service.into_iter().flat_map(|service| &service.identities);
        for identity in named {
            if !expected.contains(identity) {
                expected.push(identity.clone());
            }
        }
        expected
    }
}

/// A place that endpoints are near to or far from.
#[derive(Clone, Copy, Debug)]
pub struct Vantage<'a> {
    /// Where it is.
    pub locality: &'a Locality,
    /// Its node, where known.
    pub node: Option<&'a str>,
    /// Its cluster.
    pub cluster: &'a str,
}

impl<'a> From<&'a Workload> for Vantage<'a> {
    fn from(workload: &'a Workload) -> Self {
        Self {
            locality: &workload.locality,
            node: Some(&workload.node),
            cluster: &workload.cluster,
        }
    }
}

/// From where a plane chooses for a client: from the client's place, which is its workload's where that is known,
/// else where it has `said` to be, and then from the plane's own.
#[must_use]
pub fn vantages<'a>(client: Option<&'a Workload>, said: &'a Locality, own: &'a Workload) -> [Vantage<'a>; 2] {
    let own = Vantage::from(own);
    let said = match *said == Locality::default() {
        true => own,
        false => Vantage {
            locality: said,
            node: None,
            cluster: own.cluster,
        },
    };
    [client.map_or(said, Vantage::from), own]
}

/// What the mesh prefers where a service does not say: same node, zone, region, each falling back.
const NEAREST: [Scope; 3] = [Scope::Region, Scope::Zone, Scope::Node];

/// Chooses an endpoint of `service` for a client that dialled `destination`, one of its virtual addresses.
/// Near is what is near to the first of `from`, among equals to the second, and so on. None where no endpoint
/// may be chosen.
pub fn choose(
    known: &Snapshot,
    service: &Service,
    from: &[Vantage<'_>],
    destination: SocketAddr,
    random: &mut impl Rng,
) -> Option<Endpoint> {
    let key = service.key();
    let address = |workload: &Workload| endpoint_address(&key, workload, destination);
    nearest(known, service, from, address, random)
}

/// Chooses an endpoint of the waypoint whose service is `key`: its listener for tunnels, of the family of
/// `like` where it has both. Not one of those with the xDS uids `but`.
pub fn choose_waypoint(
    known: &Snapshot,
    key: &str,
    from: &[Vantage<'_>],
    like: IpAddr,
    but: &[String],
    random: &mut impl Rng,
) -> Option<Endpoint> {
    let service = known.service(key)?;
    let address = |workload: &Workload| {
        if but.contains(&workload.uid) {
            return None;
        }
        let ip = address_like(like, &workload.addresses)?;
        Some(SocketAddr::new(ip, port::HBONE))
    };
    nearest(known, &service, from, address, random)
}

fn nearest(
    known: &Snapshot,
    service: &Service,
    from: &[Vantage<'_>],
    address: impl Fn(&Workload) -> Option<SocketAddr>,
    random: &mut impl Rng,
) -> Option<Endpoint> {
    let preference: &[Scope] = match service.load_balancing.mode {
        Mode::Unspecified if service.load_balancing.preference.is_empty() => &NEAREST,
        _ => &service.load_balancing.preference,
    };
    let strict = service.load_balancing.mode == Mode::Strict;
    let mut best = Best::default();
    for workload in known.endpoints(&service.key()) {
        let usable = workload.healthy || service.load_balancing.allow_unhealthy;
        let Some(address) = address(workload).filter(|_| usable && workload.capacity > 0) else {
            continue;
        };
        let near: Vec<usize> = from.iter().map(|from| rank(preference, from, workload)).collect();
        if strict && near.first().is_some_and(|near| *near < preference.len()) {
            continue;
        }
        let workload = workload.clone();
        best.offer(near, Endpoint { workload, address }, random);
    }
    best.endpoint
}

/// The best endpoint so far, chosen with the chance that its capacity gives it among its equals.
#[derive(Default)]
struct Best {
    near: Vec<usize>,
    weight: u64,
    endpoint: Option<Endpoint>,
}

impl Best {
    fn offer(&mut self, near: Vec<usize>, endpoint: Endpoint, random: &mut impl Rng) {
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
fn rank(preference: &[Scope], from: &Vantage<'_>, endpoint: &Workload) -> usize {
    preference
        .iter()
        .take_while(|scope| same(**scope, from, endpoint))
        .count()
}

fn same(scope: Scope, from: &Vantage<'_>, endpoint: &Workload) -> bool {
    let (ours, theirs) = (from.locality, &endpoint.locality);
    match scope {
        Scope::Region => ours.region == theirs.region,
        Scope::Zone => ours.zone == theirs.zone,
        Scope::Subzone => ours.subzone == theirs.subzone,
        Scope::Node => from.node == Some(endpoint.node.as_str()),
        Scope::Cluster => from.cluster == endpoint.cluster,
        // Everything that is understood is on the local network.
        Scope::Network => true,
    }
}

/// Where the endpoint listens for what was dialled; none where it does not.
fn endpoint_address(key: &str, workload: &Workload, destination: SocketAddr) -> Option<SocketAddr> {
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
