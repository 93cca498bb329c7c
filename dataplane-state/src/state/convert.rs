//! From messages to the types of [`super`]: all of a message or nothing. It never narrows or widens what it
//! cannot understand.

use std::net::IpAddr;

use prost::Message;
use trefoil_api::Identity;
use trefoil_api::names::{DEFAULT_TRUST_DOMAIN, extension as extension_name, port as port_number};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1 as extension;
use trefoil_api::proto::type_url;

use super::network::{Network, network};
use super::{
    Guard, LoadBalancing, Locality, Mode, Placement, PortMapping, Protocol, Scope, Service, Tunnel, Workload,
};

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// Path of the field in the message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Malformed {
    /// A field, and what is wrong with it.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// A workload, understood whole.
pub(super) fn workload(from: &message::Workload) -> Result<Workload, Malformed> {
    required(&from.uid, "uid")?;
    local_network(&from.network, "network")?;
    let Extensions {
        placement,
        guard,
        network,
    } = extensions(&from.extensions)?;
    Ok(Workload {
        uid: from.uid.clone(),
        name: from.name.clone(),
        namespace: from.namespace.clone(),
        hostname: from.hostname.clone(),
        addresses: each(&from.addresses, "addresses", |bytes, at| address(bytes, at))?,
        identity: identity(from)?,
        tunnel: tunnel(from.tunnel_protocol)?,
        node: from.node.clone(),
        locality: locality(from.locality.as_ref()),
        services: services(from)?,
        policies: from.authorization_policies.clone(),
        placement,
        waypoint: waypoint(from.waypoint.as_ref())?,
        guard,
        groups: network.groups,
        network_policies: network.policies,
        healthy: healthy(from.status)?,
        host_network: host_network(from.network_mode)?,
        capacity: from.capacity.unwrap_or(1),
        canonical_name: from.canonical_name.clone(),
        canonical_revision: from.canonical_revision.clone(),
        workload_name: from.workload_name.clone(),
        workload_kind: kind(from.workload_type)?,
        cluster: from.cluster_id.clone(),
    })
}

/// The addresses that can be read of a resource that is refused. Those of other networks are nothing to us, and
/// the host's address tells no workload.
pub(super) fn readable_addresses(from: &message::address::Type) -> Vec<IpAddr> {
    let read = |bytes: &[u8]| address(bytes, "").ok();
    match from {
        message::address::Type::Workload(workload)
            if workload.network.is_empty() && host_network(workload.network_mode) != Ok(true) =>
        {
            let addresses = workload.addresses.iter();
            addresses.filter_map(|bytes| read(bytes)).collect()
        }
        message::address::Type::Workload(_) => Vec::new(),
        message::address::Type::Service(service) => {
            let local = service.addresses.iter().filter(|one| one.network.is_empty());
            local.filter_map(|one| read(&one.address)).collect()
        }
    }
}

/// A service, understood whole.
pub(super) fn service(from: &message::Service) -> Result<Service, Malformed> {
    required(&from.namespace, "namespace")?;
    required(&from.hostname, "hostname")?;
    let families = message::IpFamilies::try_from(from.ip_families)
        .map_err(|_| unknown("ip_families", from.ip_families))?;
    Ok(Service {
        families: match families {
            message::IpFamilies::Automatic => None,
            message::IpFamilies::Ipv4Only => Some((true, false)),
            message::IpFamilies::Ipv6Only => Some((false, true)),
            message::IpFamilies::Dual => Some((true, true)),
        },
        name: from.name.clone(),
        namespace: from.namespace.clone(),
        hostname: from.hostname.clone(),
        addresses: each(&from.addresses, "addresses", network_address)?,
        ports: each(&from.ports, "ports", |from, at| port(from, at, true))?,
        identities: each(&from.subject_alt_names, "subject_alt_names", |text, at| {
            text.parse::<Identity>()
                .map_err(|error| Malformed::new(at, error.to_string()))
        })?,
        load_balancing: load_balancing(from.load_balancing.as_ref())?,
        waypoint: waypoint(from.waypoint.as_ref())?,
    })
}

/// The key of a waypoint's service. What skips a waypoint that is not understood would escape its policy.
fn waypoint(from: Option<&message::GatewayAddress>) -> Result<Option<String>, Malformed> {
    use message::gateway_address::Destination;
    let Some(from) = from else { return Ok(None) };
    if from.hbone_mtls_port != u32::from(port_number::HBONE) {
        let problem = format!("{} is not the port of tunnels", from.hbone_mtls_port);
        return Err(Malformed::new("waypoint.hbone_mtls_port", problem));
    }
    match &from.destination {
        Some(Destination::Hostname(name)) => {
            required(&name.namespace, "waypoint.hostname.namespace")?;
            required(&name.hostname, "waypoint.hostname.hostname")?;
            Ok(Some(format!("{}/{}", name.namespace, name.hostname)))
        }
        Some(Destination::Address(_)) | None => Err(Malformed::new(
            "waypoint.destination",
            "only a service's name is understood here",
        )),
    }
}

pub(super) fn each<From, To>(
    items: &[From],
    at: &str,
    convert: impl Fn(&From, &str) -> Result<To, Malformed>,
) -> Result<Vec<To>, Malformed> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| convert(item, &format!("{at}[{index}]")))
        .collect()
}

pub(super) fn required(value: &str, field: &str) -> Result<(), Malformed> {
    if value.is_empty() {
        return Err(Malformed::new(field, "is empty"));
    }
    Ok(())
}

fn unknown(field: &str, value: i32) -> Malformed {
    Malformed::new(field, format!("unknown value {value}"))
}

/// Addresses of other networks may equal ours: treating one as ours would send traffic to a stranger.
fn local_network(network: &str, field: &str) -> Result<(), Malformed> {
    if network.is_empty() {
        return Ok(());
    }
    Err(Malformed::new(
        field,
        format!("network {network:?} is not reachable: only the local network is"),
    ))
}

/// An address of 4 or 16 bytes. One that maps an IPv4 address is that address: connections show it so.
pub(super) fn address(bytes: &[u8], at: &str) -> Result<IpAddr, Malformed> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| {
        let problem = format!("an address has 4 or 16 bytes, not {}", bytes.len());
        Malformed::new(at, problem)
    })?;
    Ok(IpAddr::from(v6).to_canonical())
}

fn network_address(from: &message::NetworkAddress, at: &str) -> Result<IpAddr, Malformed> {
    local_network(&from.network, &format!("{at}.network"))?;
    let address = address(&from.address, &format!("{at}.address"))?;
    let whole = from.address.len() * 8;
    match from.length {
        None => Ok(address),
        Some(length) if usize::try_from(length) == Ok(whole) => Ok(address),
        Some(length) => Err(Malformed::new(
            format!("{at}.length"),
            format!("ranges of addresses are not understood here (length {length})"),
        )),
    }
}

fn identity(from: &message::Workload) -> Result<Identity, Malformed> {
    let or = |value: &str, default: &str| if value.is_empty() { default } else { value }.to_owned();
    let trust_domain = or(&from.trust_domain, DEFAULT_TRUST_DOMAIN);
    let account = or(&from.service_account, "default");
    Identity::new(&trust_domain, &from.namespace, &account)
        .map_err(|error| Malformed::new("service_account", error.to_string()))
}

fn tunnel(value: i32) -> Result<Tunnel, Malformed> {
    match message::TunnelProtocol::try_from(value) {
        Ok(message::TunnelProtocol::None) => Ok(Tunnel::None),
        Ok(message::TunnelProtocol::Hbone) => Ok(Tunnel::Hbone),
        Ok(message::TunnelProtocol::LegacyIstioMtls) => Err(Malformed::new(
            "tunnel_protocol",
            "LEGACY_ISTIO_MTLS is not spoken here",
        )),
        Err(_) => Err(unknown("tunnel_protocol", value)),
    }
}

fn healthy(value: i32) -> Result<bool, Malformed> {
    match message::WorkloadStatus::try_from(value) {
        Ok(status) => Ok(status == message::WorkloadStatus::Healthy),
        Err(_) => Err(unknown("status", value)),
    }
}

fn host_network(value: i32) -> Result<bool, Malformed> {
    match message::NetworkMode::try_from(value) {
        Ok(mode) => Ok(mode == message::NetworkMode::HostNetwork),
        Err(_) => Err(unknown("network_mode", value)),
    }
}

fn kind(value: i32) -> Result<&'static str, Malformed> {
    match message::WorkloadType::try_from(value) {
        Ok(message::WorkloadType::Deployment) => Ok("deployment"),
        Ok(message::WorkloadType::Cronjob) => Ok("cronjob"),
        Ok(message::WorkloadType::Pod) => Ok("pod"),
        Ok(message::WorkloadType::Job) => Ok("job"),
        Err(_) => Err(unknown("workload_type", value)),
    }
}

fn locality(from: Option<&message::Locality>) -> Locality {
    from.map_or_else(Locality::default, |from| Locality {
        region: from.region.clone(),
        zone: from.zone.clone(),
        subzone: from.subzone.clone(),
    })
}

type Services = std::collections::BTreeMap<String, Vec<PortMapping>>;

fn services(from: &message::Workload) -> Result<Services, Malformed> {
    let mut services = Services::new();
    for (key, list) in &from.services {
        let at = format!("services[{key:?}].ports");
        let ports = each(&list.ports, &at, |from, at| port(from, at, false))?;
        services.insert(key.clone(), ports);
    }
    Ok(services)
}

/// A port; its target may be open only where each endpoint names its own (`open_target`).
fn port(from: &message::Port, at: &str, open_target: bool) -> Result<PortMapping, Malformed> {
    let number = |value: u32, field: &str| match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Malformed::new(
            format!("{at}.{field}"),
            format!("{value} is not a port (1 to 65535)"),
        )),
    };
    let target_port = if open_target && from.target_port == 0 {
        None
    } else {
        Some(number(from.target_port, "target_port")?)
    };
    Ok(PortMapping {
        service_port: number(from.service_port, "service_port")?,
        target_port,
        protocol: protocol(from.app_protocol, at)?,
    })
}

fn protocol(value: i32, at: &str) -> Result<Protocol, Malformed> {
    Ok(match message::AppProtocol::try_from(value) {
        Ok(message::AppProtocol::Unknown) => Protocol::Unknown,
        Ok(message::AppProtocol::Http11) => Protocol::Http11,
        Ok(message::AppProtocol::Http2) => Protocol::Http2,
        Ok(message::AppProtocol::Grpc) => Protocol::Grpc,
        Ok(message::AppProtocol::Tcp) => Protocol::Tcp,
        Ok(message::AppProtocol::Tls) => Protocol::Tls,
        Err(_) => return Err(unknown(&format!("{at}.app_protocol"), value)),
    })
}

fn load_balancing(from: Option<&message::LoadBalancing>) -> Result<LoadBalancing, Malformed> {
    use message::load_balancing as balancing;
    let Some(from) = from else {
        return Ok(LoadBalancing::default());
    };
    let mode = match balancing::Mode::try_from(from.mode) {
        Ok(balancing::Mode::UnspecifiedMode) => Mode::Unspecified,
        Ok(balancing::Mode::Strict) => Mode::Strict,
        Ok(balancing::Mode::Failover) => Mode::Failover,
        Ok(balancing::Mode::Passthrough) => Mode::Passthrough,
        Err(_) => return Err(unknown("load_balancing.mode", from.mode)),
    };
    let allow_unhealthy = match balancing::HealthPolicy::try_from(from.health_policy) {
        Ok(policy) => policy == balancing::HealthPolicy::AllowAll,
        Err(_) => return Err(unknown("load_balancing.health_policy", from.health_policy)),
    };
    let preference = each(
        &from.routing_preference,
        "load_balancing.routing_preference",
        |value, at| scope(*value, at),
    )?;
    Ok(LoadBalancing {
        preference,
        mode,
        allow_unhealthy,
    })
}

fn scope(value: i32, at: &str) -> Result<Scope, Malformed> {
    use message::load_balancing::Scope as From;
    match From::try_from(value) {
        Ok(From::Region) => Ok(Scope::Region),
        Ok(From::Zone) => Ok(Scope::Zone),
        Ok(From::Subzone) => Ok(Scope::Subzone),
        Ok(From::Node) => Ok(Scope::Node),
        Ok(From::Cluster) => Ok(Scope::Cluster),
        Ok(From::Network) => Ok(Scope::Network),
        Ok(From::UnspecifiedScope) | Err(_) => Err(unknown(at, value)),
    }
}

/// What Trefoil adds to a workload.
#[derive(Default)]
struct Extensions {
    placement: Option<Placement>,
    guard: Option<Guard>,
    network: Network,
}

/// Trefoil's own extensions; those of others are theirs.
fn extensions(from: &[message::Extension]) -> Result<Extensions, Malformed> {
    let mut all = Extensions::default();
    for one in from {
        let at = format!("extensions[{:?}]", one.name);
        match one.name.as_str() {
            extension_name::PLACEMENT => all.placement = Some(self::placement(one, &at)?),
            extension_name::GUARD => all.guard = Some(self::guard(one, &at)?),
            extension_name::NETWORK => all.network = network(decode(one, type_url::NETWORK, &at)?, &at)?,
            _ => {}
        }
    }
    Ok(all)
}

fn decode<M: Message + Default>(from: &message::Extension, url: &str, at: &str) -> Result<M, Malformed> {
    let config = from
        .config
        .as_ref()
        .ok_or_else(|| Malformed::new(format!("{at}.config"), "is absent"))?;
    if config.type_url != url {
        return Err(Malformed::new(
            format!("{at}.config"),
            format!("expected {url}, got {:?}", config.type_url),
        ));
    }
    M::decode(config.value.as_slice())
        .map_err(|error| Malformed::new(format!("{at}.config"), error.to_string()))
}

fn placement(from: &message::Extension, at: &str) -> Result<Placement, Malformed> {
    let from: extension::Placement = decode(from, type_url::PLACEMENT, at)?;
    Ok(Placement {
        plane: extension::Plane::try_from(from.plane)
            .map_err(|_| unknown(&format!("{at}.plane"), from.plane))?,
        isolation: extension::Isolation::try_from(from.isolation)
            .map_err(|_| unknown(&format!("{at}.isolation"), from.isolation))?,
        network_policy_selected: from.network_policy_selected,
        pod_uid: from.pod_uid,
    })
}

fn guard(from: &message::Extension, at: &str) -> Result<Guard, Malformed> {
    let from: extension::Guard = decode(from, type_url::GUARD, at)?;
    if !from.closed.is_empty() {
        return Ok(Guard::Closed(from.closed));
    }
    required(&from.service, &format!("{at}.service"))?;
    let identity = from
        .identity
        .parse()
        .map_err(|error: trefoil_api::identity::NotAnIdentity| {
            Malformed::new(format!("{at}.identity"), error.to_string())
        })?;
    Ok(Guard::Waypoint {
        identity,
        service: from.service,
    })
}
