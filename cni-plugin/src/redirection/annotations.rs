//! Reads what pods say about their redirection: annotations and probes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trefoil_api::exclusions::{AnnotationError, Exclusions};
use trefoil_api::names::SIDECAR_CONTAINER;

use super::PodFacts;

/// The facts of a pod, but for what labels say.
pub fn facts(pod: &Pod) -> Result<PodFacts, AnnotationError> {
    let exclusions = Exclusions::read(pod.metadata.annotations.as_ref())?;
    Ok(PodFacts {
        has_sidecar: has_sidecar(pod),
        captures_dns: false,
        excluded_inbound: exclusions.inbound,
        excluded_outbound: exclusions.outbound,
        excluded_destinations: exclusions.destinations,
        probe_ports: probe_ports(pod),
    })
}

/// Whether a pod was created with a sidecar.
#[must_use]
pub fn has_sidecar(pod: &Pod) -> bool {
    containers(pod).any(|container| container.name == SIDECAR_CONTAINER)
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
