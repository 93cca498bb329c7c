//! The two ends of a question: pods, services, addresses, and what serves them.

use std::net::SocketAddr;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use trefoil_api::names::annotation;

use crate::local::pod_name;
use crate::planes::Planes;

/// A pod at an end.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// NAMESPACE/POD.
    pub(super) name: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its own name.
    pub(super) pod: String,
    /// Its uid.
    pub(super) uid: String,
    /// Its node.
    pub(super) node: String,
}

/// What is to be reached.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// As asked.
    pub(super) name: String,
    /// What is dialled.
    pub(super) address: Option<SocketAddr>,
    /// A pod behind it.
    pub(super) end: Option<End>,
    /// The service, how many pods it selects, and how many of them are ready.
    pub(super) service: Option<(String, usize, usize)>,
}

impl End {
    /// The pod of a name.
    pub(super) async fn pod(planes: &Planes, name: &str) -> anyhow::Result<Self> {
        let (namespace, pod) = pod_name(name)?;
        let object = Api::<Pod>::namespaced(planes.client().clone(), &namespace)
            .get(&pod)
            .await
            .with_context(|| format!("pod {name}"))?;
        anyhow::ensure!(
            !matches!(phase(&object), "Succeeded" | "Failed"),
            "pod {name} has ended ({}): name one that runs",
            phase(&object)
        );
        Self::of(&object).with_context(|| format!("pod {name} is not on a node"))
    }

    /// Every pod that runs and that an agent has redirected.
    pub(super) async fn enrolled(planes: &Planes) -> anyhow::Result<Vec<Self>> {
        let pods = Api::<Pod>::all(planes.client().clone())
            .list(&ListParams::default())
            .await?
            .items;
        let redirected = |pod: &&Pod| {
            let by = pod.annotations().get(annotation::REDIRECTION).map(String::as_str);
            phase(pod) == "Running" && matches!(by, Some("node" | "sidecar"))
        };
        Ok(pods.iter().filter(redirected).filter_map(Self::of).collect())
    }

    fn of(pod: &Pod) -> Option<Self> {
        let (namespace, name) = (pod.namespace()?, pod.name_any());
        Some(Self {
            name: format!("{namespace}/{name}"),
            namespace,
            pod: name,
            uid: pod.uid()?,
            node: pod.spec.as_ref()?.node_name.clone()?,
        })
    }
}

impl Target {
    /// What NAMESPACE/NAME[:PORT] is: a pod, or else a service.
    pub(super) async fn find(planes: &Planes, text: &str) -> anyhow::Result<Self> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (
                name,
                Some(port.parse().with_context(|| format!("{port:?} is not a port"))?),
            ),
            None => (text, None),
        };
        let (namespace, own) = pod_name(name)?;
        let pods = Api::<Pod>::namespaced(planes.client().clone(), &namespace);
        if let Some(pod) = pods.get_opt(&own).await? {
            return Self::of_pod(text, &pod, port);
        }
        let services = Api::<Service>::namespaced(planes.client().clone(), &namespace);
        let service = services.get_opt(&own).await?;
        let service = service.with_context(|| format!("{name} is neither a pod nor a service"))?;
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.clone())
            .unwrap_or_default();
        let labels = selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",");
        let behind = pods.list(&ListParams::default().labels(&labels)).await?.items;
        Ok(Self::of_service(text, &service, &behind, port))
    }

    fn of_pod(text: &str, pod: &Pod, port: Option<u16>) -> anyhow::Result<Self> {
        let ports = pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .flat_map(|container| container.ports.iter().flatten());
        let first = ports
            .into_iter()
            .find_map(|port| u16::try_from(port.container_port).ok());
        let port = port
            .or(first)
            .with_context(|| format!("which port? {text} names none: give {text}:PORT"))?;
        let address = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        Ok(Self {
            name: text.into(),
            address: address.map(|address| SocketAddr::new(address, port)),
            end: End::of(pod),
            service: None,
        })
    }

    fn of_service(text: &str, service: &Service, behind: &[Pod], port: Option<u16>) -> Self {
        let spec = service.spec.as_ref();
        let first = spec.and_then(|spec| spec.ports.as_ref()?.first().map(|port| port.port));
        let port = port.or_else(|| first.and_then(|port| u16::try_from(port).ok()));
        let address = spec.and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok());
        let live = behind
            .iter()
            .filter(|pod| phase(pod) == "Running")
            .collect::<Vec<_>>();
        let ready = live.iter().filter(|pod| is_ready(pod)).count();
        Self {
            name: text.into(),
            address: address
                .zip(port)
                .map(|(address, port)| SocketAddr::new(address, port)),
            end: live.iter().find(|pod| is_ready(pod)).and_then(|pod| End::of(pod)),
            service: Some((
                format!(
                    "{}/{}",
                    service.namespace().unwrap_or_default(),
                    service.name_any()
                ),
                live.len(),
                ready,
            )),
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
