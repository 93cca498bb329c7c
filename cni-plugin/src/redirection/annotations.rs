//! Reads what pods say about their redirection: annotations and probes. What cannot be understood is
//! refused with its annotation named, never narrowed.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trefoil_api::names::{SIDECAR_CONTAINER, annotation};

use super::PodFacts;

/// An annotation that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {value:?} is not {expected}")]
pub struct AnnotationError {
    annotation: &'static str,
    value: String,
    expected: &'static str,
}

/// The facts of a pod.
pub fn facts(pod: &Pod) -> Result<PodFacts, AnnotationError> {
    let text = |name: &str| {
        let annotations = pod.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    };
    let read_ports = |name| ports(name, text(name).unwrap_or_default());
    Ok(PodFacts {
        has_sidecar: has_sidecar(pod),
        excluded_inbound: read_ports(annotation::EXCLUDE_INBOUND_PORTS)?,
        excluded_outbound: read_ports(annotation::EXCLUDE_OUTBOUND_PORTS)?,
        excluded_destinations: ranges(
            annotation::EXCLUDE_OUTBOUND_CIDRS,
            text(annotation::EXCLUDE_OUTBOUND_CIDRS).unwrap_or_default(),
        )?,
        probe_ports: probe_ports(pod),
    })
}

/// Whether a pod was created with a sidecar.
#[must_use]
pub fn has_sidecar(pod: &Pod) -> bool {
    containers(pod).any(|container| container.name == SIDECAR_CONTAINER)
}

/// A comma-separated list of ports; empty is none.
pub fn ports(annotation: &'static str, text: &str) -> Result<BTreeSet<u16>, AnnotationError> {
    entries(text)
        .map(|entry| {
            entry
                .parse()
                .ok()
                .filter(|&port: &u16| port != 0)
                .ok_or_else(|| AnnotationError {
                    annotation,
                    value: entry.into(),
                    expected: "a port (1 to 65535)",
                })
        })
        .collect()
}

/// A comma-separated list of address ranges, or single addresses; empty is none.
pub fn ranges(annotation: &'static str, text: &str) -> Result<BTreeSet<IpNet>, AnnotationError> {
    entries(text)
        .map(|entry| {
            let range = entry
                .parse::<IpNet>()
                .or_else(|_| entry.parse::<std::net::IpAddr>().map(IpNet::from));
            range.map(|range| range.trunc()).map_err(|_| AnnotationError {
                annotation,
                value: entry.into(),
                expected: "an address range (10.0.0.0/8, fd00::/8)",
            })
        })
        .collect()
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| {
        let initial = spec.init_containers.iter().flatten();
        initial.chain(&spec.containers)
    })
}

/// Ports that kubelet dials: those of probes and of lifecycle hooks.
fn probe_ports(pod: &Pod) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    for container in containers(pod) {
        let probes = [
            &container.liveness_probe,
            &container.readiness_probe,
            &container.startup_probe,
        ];
        found.extend(
            probes
                .into_iter()
                .flatten()
                .filter_map(|probe| probe_port(container, probe)),
        );
        let hooks = container.lifecycle.iter();
        let handlers = hooks.flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]);
        found.extend(
            handlers
                .flatten()
                .filter_map(|handler| handler_port(container, handler)),
        );
    }
    found
}

fn probe_port(container: &Container, probe: &Probe) -> Option<u16> {
    let http = probe.http_get.as_ref().map(|action| action.port.clone());
    let tcp = probe.tcp_socket.as_ref().map(|action| action.port.clone());
    let grpc = probe.grpc.as_ref().map(|action| IntOrString::Int(action.port));
    numbered(container, http.or(tcp).or(grpc)?)
}

fn handler_port(container: &Container, handler: &LifecycleHandler) -> Option<u16> {
    let http = handler.http_get.as_ref().map(|action| action.port.clone());
    let tcp = handler.tcp_socket.as_ref().map(|action| action.port.clone());
    numbered(container, http.or(tcp)?)
}

fn numbered(container: &Container, port: IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(number).ok(),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name.as_str()))
            .and_then(|port| u16::try_from(port.container_port).ok())
            .or_else(|| name.parse().ok()),
    }
}
