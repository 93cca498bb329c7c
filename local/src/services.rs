//! Services as their pods make them: what each names, and the objects and rules that follow. Pure; what
//! watches and writes is in `controller`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

pub(crate) mod controller;
pub(crate) mod rules;
#[cfg(test)]
mod tests;

/// A Service and its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceView {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its virtual addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// It has none by choice.
    pub(crate) headless: bool,
    /// Its ports.
    pub(crate) ports: Vec<PortView>,
    /// Its pods' addresses.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortView {
    /// Its name.
    pub(crate) name: Option<String>,
    /// The port.
    pub(crate) port: u16,
    /// The pods' port.
    pub(crate) target: u16,
    /// The application protocol that the Service names.
    pub(crate) app_protocol: Option<String>,
}

/// An address of a pod behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The address.
    pub(crate) address: IpAddr,
    /// The pod's node.
    pub(crate) node: String,
    /// The pod.
    pub(crate) pod: String,
    /// The pod's name below the Service's, if it is of a StatefulSet.
    pub(crate) hostname: Option<String>,
    /// It takes connections.
    pub(crate) ready: bool,
}

/// What the Services with selectors are, given the pods.
pub(crate) fn views(services: &[Service], pods: &[Pod]) -> Vec<ServiceView> {
    let mut views: Vec<_> = services
        .iter()
        .filter_map(|service| view(service, pods))
        .collect();
    views.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    views
}

fn view(service: &Service, pods: &[Pod]) -> Option<ServiceView> {
    let namespace = service.metadata.namespace.clone()?;
    let name = service.metadata.name.clone()?;
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    let selected: Vec<&Pod> = pods
        .iter()
        .filter(|pod| pod.metadata.namespace.as_ref() == Some(&namespace))
        .filter(|pod| {
            let labels = pod.metadata.labels.as_ref();
            selector
                .iter()
                .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
        .filter(|pod| runs(pod))
        .collect();
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        Some(PortView {
            name: port.name.clone(),
            port: number,
            target: target(port.target_port.as_ref(), number, &selected)?,
            app_protocol: port.app_protocol.clone(),
        })
    });
    let addresses = spec
        .cluster_ips
        .iter()
        .flatten()
        .filter_map(|address| address.parse().ok())
        .collect();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let mut endpoints: Vec<Endpoint> = selected.iter().flat_map(|pod| endpoints(pod, &name)).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    Some(ServiceView {
        ports: ports.collect(),
        namespace,
        name,
        addresses,
        headless,
        endpoints,
    })
}

/// Whether a pod may have endpoints at all.
fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn target(target: Option<&IntOrString>, port: u16, pods: &[&Pod]) -> Option<u16> {
    match target {
        None => Some(port),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => pods
            .iter()
            .flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers))
            .flat_map(|container| container.ports.iter().flatten())
            .find(|port| port.name.as_ref() == Some(name))
            .and_then(|port| u16::try_from(port.container_port).ok()),
    }
}

fn endpoints(pod: &Pod, service: &str) -> Vec<Endpoint> {
    let (Some(spec), Some(status), Some(name)) = (&pod.spec, &pod.status, &pod.metadata.name) else {
        return Vec::new();
    };
    let conditions = status.conditions.iter().flatten();
    let ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let of_service = spec.subdomain.as_deref() == Some(service);
    let addresses = status
        .pod_ips
        .iter()
        .flatten()
        .filter_map(|address| address.ip.parse().ok());
    addresses
        .map(|address| Endpoint {
            address,
            node: spec.node_name.clone().unwrap_or_default(),
            pod: name.clone(),
            hostname: of_service.then(|| spec.hostname.clone().unwrap_or_else(|| name.clone())),
            ready: ready && pod.metadata.deletion_timestamp.is_none(),
        })
        .collect()
}

/// The EndpointSlices of a Service, one per family that it has endpoints of.
pub(crate) fn slices(service: &ServiceView) -> serde_json::Result<Vec<EndpointSlice>> {
    let of = |v6: bool| {
        service
            .endpoints
            .iter()
            .filter(move |endpoint| endpoint.address.is_ipv6() == v6)
    };
    let families = [(false, "IPv4", "ipv4"), (true, "IPv6", "ipv6")];
    let used = families.into_iter().filter(|(v6, _, _)| of(*v6).next().is_some());
    used.map(|(v6, family, suffix)| {
        let ports = service.ports.iter().map(|port| {
            json!({ "name": port.name.clone().unwrap_or_default(), "port": port.target, "protocol": "TCP",
                    "appProtocol": port.app_protocol })
        });
        let endpoints = of(v6).map(|endpoint| {
            json!({
                "addresses": [endpoint.address],
                "conditions": { "ready": endpoint.ready, "serving": endpoint.ready },
                "hostname": endpoint.hostname,
                "nodeName": endpoint.node,
                "targetRef": { "kind": "Pod", "name": endpoint.pod, "namespace": service.namespace },
            })
        });
        serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{suffix}", service.name),
                "namespace": service.namespace,
                "labels": {
                    "kubernetes.io/service-name": service.name,
                    "endpointslice.kubernetes.io/managed-by": "trefoilctl",
                },
            },
            "addressType": family,
            "ports": ports.collect::<Vec<_>>(),
            "endpoints": endpoints.collect::<Vec<_>>(),
        }))
    })
    .collect()
}
