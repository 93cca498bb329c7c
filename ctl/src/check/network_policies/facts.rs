//! What NetworkPolicies are judged by, of the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::rules::{Namespaces, Policy};
use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use trefoil_api::names::{MANAGER, MESH_NAMESPACE, annotation, label};

/// The cluster.
#[derive(Debug)]
pub(in crate::check) struct Facts {
    pub(super) namespaces: Namespaces,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) policies: Vec<Policy>,
}

/// What takes a pod's tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plane {
    /// The node's proxy.
    Node,
    /// A sidecar.
    Sidecar,
    /// It is a waypoint itself.
    Waypoint,
}

/// A pod with an address of its own.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// NAMESPACE/POD.
    pub(super) full_name: String,
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) addresses: Vec<IpAddr>,
    /// TCP ports by name.
    pub(super) ports: BTreeMap<String, u16>,
    /// None of one that is outside the mesh.
    pub(super) plane: Option<Plane>,
    pub(super) control_plane: bool,
}

impl Facts {
    /// Of objects. Pods of the host's network are left out: policies do not concern them.
    pub(in crate::check) fn of(namespaces: &[Namespace], pods: &[Pod], policies: Vec<NetworkPolicy>) -> Self {
        let namespaces = namespaces
            .iter()
            .map(|one| (one.name_any(), one.labels().clone()));
        Self {
            namespaces: namespaces.collect(),
            endpoints: pods.iter().filter_map(Endpoint::of).collect(),
            policies: policies.into_iter().filter_map(Policy::of).collect(),
        }
    }
}

impl Endpoint {
    fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let status = pod.status.as_ref()?;
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || spec.host_network == Some(true) {
            return None;
        }
        let namespace = pod.namespace()?;
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let addresses = status.pod_ips.iter().flatten().map(|one| one.ip.as_str());
        let addresses = addresses.chain(status.pod_ip.as_deref());
        Some(Self {
            full_name: format!("{namespace}/{}", pod.name_any()),
            labels: pod.labels().clone(),
            addresses: addresses.filter_map(|ip| ip.parse().ok()).collect(),
            ports: containers.flat_map(named_ports).collect(),
            plane: plane(pod),
            control_plane: namespace == MESH_NAMESPACE
                && pod
                    .labels()
                    .get("app")
                    .is_some_and(|app| app == "trefoil-control-plane"),
            namespace,
        })
    }
}

/// What its agent says, or that it is a waypoint.
fn plane(pod: &Pod) -> Option<Plane> {
    if pod
        .labels()
        .get(label::MANAGED_BY)
        .is_some_and(|by| by == MANAGER)
    {
        return Some(Plane::Waypoint);
    }
    match pod.annotations().get(annotation::REDIRECTION)?.as_str() {
        "node" => Some(Plane::Node),
        "sidecar" => Some(Plane::Sidecar),
        _ => None,
    }
}

fn named_ports(container: &Container) -> impl Iterator<Item = (String, u16)> {
    let ports = container.ports.iter().flatten();
    ports
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
}
