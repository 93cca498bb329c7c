//! What this process knows of the mesh: workloads, services and policies, each understood whole. One writer,
//! many readers that never wait. It never does I/O and never guesses: what cannot be understood is refused
//! with the field named, and the last good version stays in force.

mod convert;
#[cfg(any(test, feature = "fixtures"))]
#[path = "state/tests/fixtures.rs"]
#[allow(clippy::expect_used)]
pub mod fixtures;
mod network;
mod policies;
mod settings;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod unread;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use trefoil_api::Identity;
use trefoil_api::network_policy::Policy as NetworkPolicy;
use trefoil_api::proto::trefoil::v1 as extension;

pub use convert::Malformed;
pub use extension::{Isolation, Plane};
pub use policies::{Guarding, Policies};
pub use settings::{InForce, Settings};
pub use snapshot::Snapshot;
pub use store::{Consumer, Refusal, Store, decode};

use crate::Layer;

/// One workload: a pod, as a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its xDS uid, `Kubernetes//Pod/NAMESPACE/NAME` for pods.
    pub uid: String,
    /// Name of the pod.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Its own name within its headless service, such as `cart-0.carts.shop.svc.cluster.local`; empty if none.
    pub hostname: String,
    /// Its addresses; may be of both families.
    pub addresses: Vec<IpAddr>,
    /// Who it is.
    pub identity: Identity,
    /// How it is reached.
    pub tunnel: Tunnel,
    /// Name of its node.
    pub node: String,
    /// Where its node is.
    pub locality: Locality,
    /// The services it serves: `NAMESPACE/HOSTNAME` to the ports under which it does.
    pub services: BTreeMap<String, Vec<PortMapping>>,
    /// Policies that select it, `NAMESPACE/NAME`; namespace and mesh policies are not listed.
    pub policies: Vec<String>,
    /// Which plane serves it, where the control plane says.
    pub placement: Option<Placement>,
    /// The waypoint that whoever dials its address is sent through: its service, `NAMESPACE/HOSTNAME`.
    pub waypoint: Option<String>,
    /// What its traffic must have passed, if anything, however it came.
    pub guard: Option<Guard>,
    /// As a client: the groups of NetworkPolicies' peers that it is in.
    pub groups: BTreeSet<String>,
    /// As a server: the NetworkPolicies that select it and are about what comes in.
    pub network_policies: Vec<NetworkPolicy>,
    /// Whether it may be chosen as an endpoint.
    pub healthy: bool,
    /// It shares the address of its node, so its address does not tell it.
    pub host_network: bool,
    /// Relative share of traffic; 1 unless set.
    pub capacity: u32,
    /// For telemetry.
    pub canonical_name: String,
    /// For telemetry.
    pub canonical_revision: String,
    /// What made the pod, such as the name of its Deployment; for telemetry.
    pub workload_name: String,
    /// What kind of thing made the pod: `deployment`, `cronjob`, `pod` or `job`; for telemetry.
    pub workload_kind: &'static str,
    /// The cluster it runs in; for telemetry.
    pub cluster: String,
}

impl Workload {
    /// What a port of its application speaks, as declared by any of its services.
    #[must_use]
    pub fn declared(&self, port: u16) -> Protocol {
        let ports = self.services.values().flatten();
        let of_port = ports.filter(|mapping| mapping.target_port == Some(port));
        let mut declared = of_port.map(|mapping| mapping.protocol);
        declared
            .find(|protocol| *protocol != Protocol::Unknown)
            .unwrap_or(Protocol::Unknown)
    }

    /// The plane that serves it, where the control plane says.
    #[must_use]
    pub fn plane(&self) -> Option<Layer> {
        match self.placement.as_ref()?.plane {
            Plane::Node => Some(Layer::Node),
            Plane::Sidecar => Some(Layer::Sidecar),
            Plane::None | Plane::Unspecified => None,
        }
    }
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    /// As it is: it is outside the mesh.
    None,
    /// HBONE to port 15008 of its address.
    Hbone,
}

/// Which plane serves a workload, and how it may be treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What redirects it now.
    pub plane: Plane,
    /// Which worker of a node proxy may act for it.
    pub isolation: Isolation,
    /// A NetworkPolicy selects it: its traffic never takes the same-node path.
    pub network_policy_selected: bool,
    /// Kubernetes uid of the pod.
    pub pod_uid: String,
}

/// What a workload's traffic must have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A waypoint.
    Waypoint {
        /// The one identity whose forwarded identities are believed.
        identity: Identity,
        /// The waypoint's service, `NAMESPACE/HOSTNAME`: what skipped it is handed over to an endpoint of it.
        service: String,
    },
    /// Nobody passes, for this reason.
    Closed(String),
}

/// Where a workload is; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Locality {
    /// Largest.
    pub region: String,
    /// Within the region.
    pub zone: String,
    /// Within the zone.
    pub subzone: String,
}

/// A port of a service and what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortMapping {
    /// What clients dial.
    pub service_port: u16,
    /// What the endpoint listens on; none where each endpoint has its own.
    pub target_port: Option<u16>,
    /// What is spoken there, as declared.
    pub protocol: Protocol,
}

/// What a port speaks, as declared by its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Not declared.
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
    /// The application's own TLS.
    Tls,
}

impl Protocol {
    /// Whether it is HTTP, or may turn out to be.
    #[must_use]
    pub fn may_be_http(self) -> bool {
        !matches!(self, Self::Tcp | Self::Tls)
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Name of the Service.
    pub name: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Such as `cart.shop.svc.cluster.local`.
    pub hostname: String,
    /// Its virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Families that it is reached by, IPv4 and IPv6; unless it is not said.
    pub families: Option<(bool, bool)>,
    /// Its ports.
    pub ports: Vec<PortMapping>,
    /// Identities that its endpoints may have beyond their own.
    pub identities: Vec<Identity>,
    /// Which endpoints are preferred.
    pub load_balancing: LoadBalancing,
    /// The waypoint that whoever dials it is sent through: that one's service, `NAMESPACE/HOSTNAME`.
    pub waypoint: Option<String>,
}

impl Service {
    /// Its xDS name, `NAMESPACE/HOSTNAME`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.hostname)
    }

    /// What a port of it speaks, as declared; none where it has no such port.
    #[must_use]
    pub fn declared(&self, port: u16) -> Option<Protocol> {
        let mut ports = self.ports.iter();
        let mapping = ports.find(|mapping| mapping.service_port == port)?;
        Some(mapping.protocol)
    }
}

/// Which endpoints of a service are preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoadBalancing {
    /// What must be equal to the client's, most important first.
    pub preference: Vec<Scope>,
    /// What happens where nothing is equal.
    pub mode: Mode,
    /// Endpoints that are not healthy are chosen too.
    pub allow_unhealthy: bool,
}

/// A property of a workload's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// See [`Locality`].
    Region,
    /// See [`Locality`].
    Zone,
    /// See [`Locality`].
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
    /// The network.
    Network,
}

/// What happens where no endpoint is in the preferred place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The mesh's own preference: same node, zone, region, then any.
    #[default]
    Unspecified,
    /// No endpoint.
    Strict,
    /// The nearest that there is.
    Failover,
    /// The client's choice of address stands.
    Passthrough,
}
