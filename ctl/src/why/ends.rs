//! A pod at an end of a question.

use std::net::IpAddr;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use trefoil_api::names::{annotation, workload_uid};

use crate::local::pod_name;
use crate::planes::Planes;

/// A pod at an end.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// NAMESPACE/POD.
    pub(super) name: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its uid.
    pub(super) uid: String,
    /// The uid that its workload has with the planes.
    pub(super) workload: String,
    /// Its node.
    pub(super) node: String,
    /// Its first address.
    pub(super) address: Option<IpAddr>,
    /// The ports that its containers declare, with their names.
    pub(super) ports: Vec<(Option<String>, u16)>,
}

impl End {
    /// The pod of a name: NAMESPACE/POD, which may be written pod/NAMESPACE/POD.
    pub(super) async fn pod(planes: &Planes, name: &str) -> anyhow::Result<Self> {
        let name = name
            .strip_prefix("pod/")
            .filter(|rest| rest.contains('/'))
            .unwrap_or(name);
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

    /// A pod, once it is on a node.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let (namespace, name) = (pod.namespace()?, pod.name_any());
        let spec = pod.spec.as_ref()?;
        let declared = spec.containers.iter().flat_map(|one| one.ports.iter().flatten());
        let ports = declared.filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some((port.name.clone(), number))
        });
        Some(Self {
            name: format!("{namespace}/{name}"),
            workload: workload_uid(&namespace, &name),
            uid: pod.uid()?,
            node: spec.node_name.clone()?,
            address: pod
                .status
                .as_ref()
                .and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
            ports: ports.collect(),
            namespace,
        })
    }
}

/// The phase that a pod is in.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether a pod takes connections of services.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
