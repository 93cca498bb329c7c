//! What is to be reached: a pod, or a service and the pods behind it.

use std::net::SocketAddr;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::ends::{End, is_ready, phase};
use crate::planes::Planes;

#[cfg(test)]
mod tests;

/// What is to be reached.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Such as `service shop/cache`.
    pub(super) name: String,
    /// What is dialled.
    pub(super) address: Option<SocketAddr>,
    /// The pods that may answer, and where each would.
    pub(super) behind: Vec<(End, SocketAddr)>,
    /// Of a service: how many pods that run it selects.
    pub(super) selected: Option<usize>,
    /// The other thing of the same name, which was not meant.
    pub(super) namesake: Option<String>,
}

/// Which kind of thing a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// A pod, or else a service.
    Either,
    /// A pod.
    Pod,
    /// A service.
    Service,
}

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) meant: Meant,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port: Option<u16>,
}

impl Name {
    /// `[KIND/]NAMESPACE/NAME[:PORT]`, or `KIND/NAME[:PORT]` in the client's namespace.
    pub(super) fn parse(text: &str, namespace: &str) -> anyhow::Result<Self> {
        let (path, port) = match text.rsplit_once(':') {
            Some((path, port)) => {
                let port = port.parse().with_context(|| format!("{port:?} is not a port"))?;
                (path, Some(port))
            }
            None => (text, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let kind = |text: &str| match text {
            "pod" | "po" | "pods" => Some(Meant::Pod),
            "svc" | "service" | "services" => Some(Meant::Service),
            _ => None,
        };
        let (meant, namespace, name) = match parts.as_slice() {
            [first, name] => match kind(first) {
                Some(meant) => (meant, namespace, *name),
                None => (Meant::Either, *first, *name),
            },
            [first, namespace, name] => {
                let meant = kind(first).with_context(|| format!("{first:?}: expected pod or svc"))?;
                (meant, *namespace, *name)
            }
            _ => anyhow::bail!("{text:?}: expected [pod/|svc/]NAMESPACE/NAME[:PORT]"),
        };
        anyhow::ensure!(
            !namespace.is_empty() && !name.is_empty(),
            "{text:?}: expected [pod/|svc/]NAMESPACE/NAME[:PORT]"
        );
        Ok(Self {
            meant,
            namespace: namespace.into(),
            name: name.into(),
            port,
        })
    }
}

impl Target {
    /// What a text, asked by a client in `namespace`, is.
    pub(super) async fn find(planes: &Planes, text: &str, namespace: &str) -> anyhow::Result<Self> {
        let Name {
            meant,
            namespace,
            name,
            port,
        } = Name::parse(text, namespace)?;
        let pods = Api::<Pod>::namespaced(planes.client().clone(), &namespace);
        let services = Api::<Service>::namespaced(planes.client().clone(), &namespace);
        let pod = match meant {
            Meant::Service => None,
            _ => pods.get_opt(&name).await?,
        };
        let service = match meant {
            Meant::Pod => None,
            _ => services.get_opt(&name).await?,
        };
        if let Some(pod) = pod {
            let mut target = Self::of_pod(&pod, port)?;
            target.namesake = service.map(|_| format!("svc/{namespace}/{name}"));
            return Ok(target);
        }
        let service = service.with_context(|| {
            let what = match meant {
                Meant::Either => "neither a pod nor a service",
                Meant::Pod => "not a pod",
                Meant::Service => "not a service",
            };
            format!("{namespace}/{name} is {what}: see `trefoilctl get pods,services -n {namespace}`")
        })?;
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
        let labels: Vec<String> = selector
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        // One without a selector has endpoints that somebody else writes.
        let behind = match labels.is_empty() {
            true => Vec::new(),
            false => {
                let selected = ListParams::default().labels(&labels.join(","));
                pods.list(&selected).await?.items
            }
        };
        Self::of_service(&service, &behind, port)
    }

    fn of_pod(pod: &Pod, port: Option<u16>) -> anyhow::Result<Self> {
        let end = End::of(pod).with_context(|| format!("pod {} is not on a node", pod.name_any()))?;
        let name = format!("pod {}", end.name);
        anyhow::ensure!(
            !matches!(phase(pod), "Succeeded" | "Failed"),
            "{name} has ended ({}): name one that runs",
            phase(pod)
        );
        let first = end.ports.first().map(|(_, port)| *port);
        let port = port
            .or(first)
            .with_context(|| format!("which port? {name} declares none: give {}:PORT", end.name))?;
        let address = end.address.map(|address| SocketAddr::new(address, port));
        Ok(Self {
            name,
            address,
            behind: address.map(|address| (end, address)).into_iter().collect(),
            selected: None,
            namesake: None,
        })
    }

    fn of_service(service: &Service, selected: &[Pod], port: Option<u16>) -> anyhow::Result<Self> {
        let spec = service.spec.as_ref();
        let name = format!(
            "service {}/{}",
            service.namespace().unwrap_or_default(),
            service.name_any()
        );
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let asked = match port {
            Some(port) => ports.iter().find(|one| one.port == i32::from(port)),
            None => ports.first(),
        };
        let asked = asked.with_context(|| {
            let there: Vec<String> = ports.iter().map(|one| one.port.to_string()).collect();
            format!("{name} has no such port: it has {}", there.join(", "))
        })?;
        let live: Vec<&Pod> = selected.iter().filter(|pod| phase(pod) == "Running").collect();
        let ready = live.iter().filter(|pod| is_ready(pod));
        let behind: Vec<(End, SocketAddr)> = ready
            .filter_map(|pod| {
                let end = End::of(pod)?;
                let port = target_port(asked, &end)?;
                let address = SocketAddr::new(end.address?, port);
                Some((end, address))
            })
            .collect();
        let virtual_address = spec.and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok());
        // A headless one is dialled by its pods' addresses.
        let first = behind.first().map(|(_, address)| *address);
        let address = virtual_address
            .zip(u16::try_from(asked.port).ok())
            .map(|(address, port)| SocketAddr::new(address, port))
            .or(first);
        Ok(Self {
            name,
            address,
            behind,
            selected: Some(live.len()),
            namesake: None,
        })
    }
}

/// The port of a pod that a service's port leads to.
fn target_port(port: &ServicePort, end: &End) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => end
            .ports
            .iter()
            .find(|(own, _)| own.as_ref() == Some(name))
            .map(|(_, port)| *port),
    }
}
