//! Services as resources.

use std::net::IpAddr;

use prost::Message;
use trefoil_api::proto::istio::workload as message;

use super::facts::Service;
use super::snapshot::{Encoded, ResourceKind};
use super::waypoints::{Use, gateway_address};
use super::{Index, ObjectKey};

/// The name by which a service is dialled.
pub(super) fn hostname(key: &ObjectKey) -> String {
    format!("{}.{}.svc.cluster.local", key.name, key.namespace)
}

/// The xDS name of a service.
pub(super) fn resource_name(key: &ObjectKey) -> String {
    format!("{}/{}", key.namespace, hostname(key))
}

/// The other name of an address. The network is the one unnamed network.
pub(super) fn alias(address: &IpAddr) -> String {
    format!("/{address}")
}

pub(super) fn octets(address: &IpAddr) -> bytes::Bytes {
    match address {
        IpAddr::V4(v4) => bytes::Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes::Bytes::copy_from_slice(&v6.octets()),
    }
}

impl Index {
    pub(super) fn compute_service(&mut self, key: &ObjectKey) {
        let name = resource_name(key);
        let used = self
            .services
            .get(key)
            .map(|service| self.service_use(key, service));
        let chosen = self
            .services
            .get(key)
            .and_then(|service| self.chosen(key, &service.labels));
        self.services_naming.set(key, chosen.into_iter().collect());
        let fault = used.as_ref().and_then(Use::fault);
        self.news |= self.findings.set("service", key, fault);
        self.note_waypoint(key, used.as_ref());
        self.dirty.service_statuses.insert(key.clone());
        let waypoint = match &used {
            Some(Use::Waypoint(_, service)) => Some(gateway_address(service)),
            _ => None,
        };
        let resource = self.services.get(key).map(|service| {
            let service_message = message::Service {
                waypoint,
                ..service_message(key, service)
            };
            let address = message::Address {
                r#type: Some(message::address::Type::Service(service_message)),
            };
            let aliases = service.addresses.iter().map(alias).collect();
            let value = address.encode_to_vec();
            Encoded::new(ResourceKind::Address, &name, aliases, Vec::new(), value)
        });
        let changes = &mut self.changes;
        self.snapshot.set(changes, ResourceKind::Address, &name, resource);
    }

    /// Remembers the waypoint that serves a service; its routes say whether there is one.
    fn note_waypoint(&mut self, key: &ObjectKey, used: Option<&Use>) {
        let new = match used {
            Some(Use::Waypoint(waypoint, _)) => Some(waypoint),
            _ => None,
        };
        if self.service_waypoints.get(key) == new {
            return;
        }
        match new {
            Some(waypoint) => self.service_waypoints.insert(key.clone(), waypoint.clone()),
            None => self.service_waypoints.remove(key),
        };
        let routes = self.routes_by_service.get(key).into_iter().flatten();
        self.dirty.routes.extend(routes.cloned());
    }
}

fn service_message(key: &ObjectKey, service: &Service) -> message::Service {
    use message::load_balancing::{HealthPolicy, Mode, Scope};
    // A headless one has no addresses that would tell.
    let (v4, v6) = match service.addresses.is_empty() {
        true => service.families,
        false => (
            service.addresses.iter().any(IpAddr::is_ipv4),
            service.addresses.iter().any(IpAddr::is_ipv6),
        ),
    };
    let families = match (v4, v6) {
        (true, true) => message::IpFamilies::Dual,
        (true, false) => message::IpFamilies::Ipv4Only,
        (false, true) => message::IpFamilies::Ipv6Only,
        (false, false) => message::IpFamilies::Automatic,
    };
    let mut balancing = message::LoadBalancing::default();
    if service.node_local {
        balancing.mode = Mode::Strict.into();
        balancing.routing_preference = vec![Scope::Node.into()];
    } else if service.prefers_zone {
        balancing.mode = Mode::Failover.into();
        balancing.routing_preference = vec![Scope::Region.into(), Scope::Zone.into()];
    }
    if service.publish_not_ready {
        balancing.health_policy = HealthPolicy::AllowAll.into();
    }
    message::Service {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        hostname: hostname(key),
        addresses: service
            .addresses
            .iter()
            .map(|address| message::NetworkAddress {
                network: String::new(),
                address: octets(address),
                length: None,
            })
            .collect(),
        ports: service
            .ports
            .iter()
            .map(|port| message::Port {
                service_port: port.port.into(),
                // Zero: named, so that each endpoint has its own.
                target_port: port.target.unwrap_or(0).into(),
                app_protocol: port.protocol.into(),
            })
            .collect(),
        load_balancing: (balancing != message::LoadBalancing::default()).then_some(balancing),
        ip_families: families.into(),
        ..message::Service::default()
    }
}
