//! What of the objects the index looks at: small, comparable, and all that is kept of them in memory.

mod gateway;
mod network;
mod selector;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use trefoil_api::names::{self, annotation, label};
use trefoil_api::proto::istio::workload::AppProtocol;
use trefoil_api::proto::trefoil::v1::{Isolation, Plane};

use super::ObjectKey;
pub use gateway::{
    Allowed, Gateway, GatewayClass, Listener, ParametersReference, ReferenceGrant, RouteObject,
};
pub use network::{Group, NetworkPolicy, Peer, Place, Ports, Rule};
pub use selector::Selector;

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// Of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Labels.
    pub labels: Labels,
}

/// Of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Region; empty if unknown.
    pub region: String,
    /// Zone; empty if unknown.
    pub zone: String,
}

/// Of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Kubernetes uid.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it runs; empty if not scheduled.
    pub node: String,
    /// Under which account.
    pub service_account: String,
    /// Its name among the pods of its headless service, and that service's.
    pub hostname: Option<(String, String)>,
    /// It runs in the host's network namespace.
    pub host_network: bool,
    /// It ended.
    pub terminal: bool,
    /// It is ready, and not being deleted.
    pub ready: bool,
    /// Kind and name of its controller.
    pub owner: Option<(String, String)>,
    /// What its annotation says redirects it.
    pub redirection: Option<Plane>,
    /// TCP ports of its containers that have a name.
    pub ports: Vec<(String, u16)>,
}

/// Of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Those of its labels that are about waypoints.
    pub labels: Labels,
    /// Cluster addresses.
    pub addresses: Vec<IpAddr>,
    /// Families that it is reached by, IPv4 and IPv6; neither where nothing is said.
    pub families: (bool, bool),
    /// TCP ports.
    pub ports: Vec<ServicePort>,
    /// Endpoints that are not ready are served too.
    pub publish_not_ready: bool,
    /// Only endpoints of the client's node.
    pub node_local: bool,
    /// Endpoints of the client's zone first, and among them no node before another.
    pub prefers_zone: bool,
    /// The conditions in its status.
    pub conditions: Vec<Value>,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty if none.
    pub name: String,
    /// Port.
    pub port: u16,
    /// Port of the endpoints, unless it is named.
    pub target: Option<u16>,
    /// What is spoken.
    pub protocol: AppProtocol,
}

/// Of an endpoint slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The service that it is of.
    pub service: String,
    /// Port names and numbers.
    pub ports: Vec<(String, u16)>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod that it is.
    pub pod: Option<ObjectKey>,
    /// It takes connections.
    pub ready: bool,
    /// Where it is; empty if unknown.
    pub node: String,
    /// Zone; empty if unknown.
    pub zone: String,
}

/// Of a policy of the mesh's own kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyObject {
    /// The object, as far as `spec`.
    pub object: serde_json::Value,
    /// Generation.
    pub generation: i64,
    /// When it was made, for "the oldest wins".
    pub created: String,
    /// What its status says.
    pub conditions: Vec<Condition>,
}

impl From<&core::Namespace> for Namespace {
    fn from(object: &core::Namespace) -> Self {
        Self {
            labels: object.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

impl Namespace {
    /// The isolation dial.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        match self.labels.get(label::ISOLATION).map(String::as_str) {
            Some("shared") => Isolation::Shared,
            Some("namespace") => Isolation::Namespace,
            Some("workload") => Isolation::Workload,
            _ => Isolation::Unspecified,
        }
    }
}

impl From<&core::Node> for Node {
    fn from(object: &core::Node) -> Self {
        let label = |name: &str| {
            let labels = object.metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get(name))
                .cloned()
                .unwrap_or_default()
        };
        Self {
            region: label(label::REGION),
            zone: label(label::ZONE),
        }
    }
}

impl From<&core::Pod> for Pod {
    fn from(object: &core::Pod) -> Self {
        let spec = object.spec.as_ref();
        let status = object.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let annotations = object.metadata.annotations.as_ref();
        let redirection = annotations.and_then(|all| all.get(annotation::REDIRECTION));
        let mut addresses: Vec<IpAddr> = status
            .and_then(|status| status.pod_ips.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.ip.parse().ok())
            .collect();
        if addresses.is_empty() {
            let single = status.and_then(|status| status.pod_ip.as_ref());
            addresses.extend(single.and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            addresses,
            node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            service_account: spec
                .and_then(|spec| spec.service_account_name.clone())
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "default".into()),
            hostname: spec.and_then(|spec| spec.hostname.clone().zip(spec.subdomain.clone())),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            terminal: matches!(phase, Some("Succeeded" | "Failed")),
            ready: ready && object.metadata.deletion_timestamp.is_none(),
            owner: object.metadata.owner_references.as_ref().and_then(|owners| {
                let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
                Some((owner.kind.clone(), owner.name.clone()))
            }),
            ports: spec.map(named_ports).unwrap_or_default(),
            redirection: redirection.and_then(|value| match value.as_str() {
                "node" => Some(Plane::Node),
                "sidecar" => Some(Plane::Sidecar),
                "none" => Some(Plane::None),
                _ => None,
            }),
        }
    }
}

/// Of containers that run as long as the pod does.
fn named_ports(spec: &core::PodSpec) -> Vec<(String, u16)> {
    let beside = spec.init_containers.iter().flatten();
    let beside = beside.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(beside)
        .flat_map(|one| one.ports.iter().flatten());
    let tcp = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
    tcp.filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
        .collect()
}

impl Pod {
    /// Whether a proxy of its node may act for it.
    #[must_use]
    pub fn may_be_acted_for(&self, namespace: &str) -> bool {
        !self.terminal && !self.host_network && !self.node.is_empty() && namespace != names::MESH_NAMESPACE
    }
}

/// The labels of a service that are looked at.
const OF_WAYPOINTS: [&str; 3] = [
    label::USE_WAYPOINT,
    label::USE_WAYPOINT_NAMESPACE,
    label::GATEWAY_NAME,
];

impl From<&core::Service> for Service {
    fn from(object: &core::Service) -> Self {
        let Some(spec) = &object.spec else {
            return Self::default();
        };
        let mut labels = object.metadata.labels.clone().unwrap_or_default();
        labels.retain(|key, _| OF_WAYPOINTS.contains(&key.as_str()));
        let mut addresses: Vec<IpAddr> = Vec::new();
        let many = spec.cluster_ips.iter().flatten();
        for ip in many.chain(&spec.cluster_ip) {
            // Headless services say "None".
            if let Ok(address) = ip.parse()
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
        let mut families = spec.ip_families.iter().flatten();
        let v4 = families.clone().any(|one| one == "IPv4");
        Self {
            labels,
            families: (v4, families.any(|one| one == "IPv6")),
            addresses,
            ports: spec.ports.iter().flatten().filter_map(service_port).collect(),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            // "PreferSameNode" is what the mesh does unasked.
            prefers_zone: matches!(
                spec.traffic_distribution.as_deref(),
                Some("PreferClose" | "PreferSameZone")
            ),
            conditions: conditions(object.status.as_ref()),
        }
    }
}

fn conditions(status: Option<&core::ServiceStatus>) -> Vec<Value> {
    let all = status.and_then(|status| status.conditions.as_ref());
    // What was read from JSON can be written as such.
    let values = all.into_iter().flatten().map(serde_json::to_value);
    values.filter_map(Result::ok).collect()
}

fn service_port(port: &core::ServicePort) -> Option<ServicePort> {
    if !matches!(port.protocol.as_deref(), None | Some("TCP")) {
        return None;
    }
    let number = u16::try_from(port.port).ok()?;
    let name = port.name.clone().unwrap_or_default();
    let protocol = port.app_protocol.as_deref().unwrap_or(&name);
    Some(ServicePort {
        port: number,
        target: match &port.target_port {
            None => Some(number),
            Some(IntOrString::Int(0)) => Some(number),
            Some(IntOrString::Int(target)) => u16::try_from(*target).ok(),
            Some(IntOrString::String(name)) => name.parse().ok(),
        },
        protocol: app_protocol(protocol),
        name,
    })
}

/// From an `appProtocol` or the first word of a port's name.
fn app_protocol(text: &str) -> AppProtocol {
    match text.split('-').next().unwrap_or_default() {
        "http" => AppProtocol::Http11,
        "http2" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" => AppProtocol::Tcp,
        "tls" | "https" => AppProtocol::Tls,
        _ => AppProtocol::Unknown,
    }
}

impl From<&EndpointSlice> for Slice {
    fn from(object: &EndpointSlice) -> Self {
        let labels = object.metadata.labels.as_ref();
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let ports = object.ports.iter().flatten().filter_map(|port| {
            let tcp = matches!(port.protocol.as_deref(), None | Some("TCP"));
            let number = u16::try_from(port.port?).ok()?;
            tcp.then(|| (port.name.clone().unwrap_or_default(), number))
        });
        let endpoints = object.endpoints.iter().flatten().map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let pod = endpoint
                .target_ref
                .as_ref()
                .filter(|target| target.kind.as_deref() == Some("Pod"));
            Endpoint {
                addresses: endpoint
                    .addresses
                    .iter()
                    .filter_map(|ip| ip.parse().ok())
                    .collect(),
                pod: pod.and_then(|pod| {
                    let in_namespace = pod.namespace.clone().unwrap_or_else(|| namespace.clone());
                    Some(ObjectKey::new(in_namespace, pod.name.clone()?))
                }),
                ready: conditions.and_then(|all| all.ready).unwrap_or(true),
                node: endpoint.node_name.clone().unwrap_or_default(),
                zone: endpoint.zone.clone().unwrap_or_default(),
            }
        });
        Self {
            service: labels
                .and_then(|labels| labels.get("kubernetes.io/service-name"))
                .cloned()
                .unwrap_or_default(),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    }
}

/// Whether a selector selects labels. An operator that is not known selects: the safe side for a policy, and
/// no API server stores one.
pub(super) fn selector_selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let exact = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    matches_all(exact, labels)
        && expressions.into_iter().all(|one| {
            let value = labels.get(&one.key);
            let listed = value.is_some_and(|value| one.values.iter().flatten().any(|v| v == value));
            match one.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => true,
            }
        })
}

/// Whether labels have all of these.
pub fn matches_all<'a>(wanted: impl IntoIterator<Item = (&'a String, &'a String)>, labels: &Labels) -> bool {
    wanted
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
