//! What the agent knows of its node, and what follows for each pod. Pure: observations in, wishes out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use trefoil_api::names::{MESH_NAMESPACE, annotation};
use trefoil_api::plane::{self, Labels};
use trefoil_api::proto::trefoil::v1::Plane;

use crate::attachment::{Attachment, LastKnown};
use crate::redirection::{PodFacts, annotations};

#[cfg(test)]
mod tests;

/// Service account of the node proxy.
const NODE_PROXY_ACCOUNT: &str = "trefoil-node";

/// What is to be true of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) service_account: String,
    pub(crate) host_network: bool,
    /// The plane and the rest, or why it cannot be said: then the pod keeps what it has.
    pub(crate) wish: Result<Wish, Undecided>,
    pub(crate) attachment: Option<Attachment>,
    /// The pod is being made: nothing runs in it yet.
    pub(crate) fresh: bool,
    /// What its annotation says of its redirection.
    pub(crate) annotated: Option<String>,
    /// The mesh is being removed: the pod leaves it for good.
    pub(crate) leaves: bool,
}

/// A plane and what the rules depend on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    pub(crate) plane: Plane,
    pub(crate) facts: PodFacts,
    pub(crate) remark: Option<String>,
}

/// Why it cannot be said what a pod is to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecided {
    /// It will be said in a moment.
    #[error("{0} is not known yet")]
    NotYet(String),
    /// The pod or its namespace says something that is not understood.
    #[error("{0}")]
    Refused(String),
}

/// What of the mesh's configuration the rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether pods' own labels count.
    pub(crate) pod_overrides: bool,
    /// Whether planes answer DNS queries where no label says.
    pub(crate) dns_capture: bool,
}

#[derive(Debug)]
struct Known {
    pod: Pod,
    /// It was in a list or watch: if it is missing from a later list, it ended. One that only a CNI call
    /// brought may be too new for a list from a cache.
    listed: bool,
}

/// The world as it was last observed.
#[derive(Debug, Default)]
pub(crate) struct World {
    namespaces: Option<BTreeMap<String, Labels>>,
    /// What the mesh's configuration says of pods, once it is known.
    settings: Option<Settings>,
    /// The request that the mesh be removed.
    removal: Option<String>,
    pods: BTreeMap<String, Known>,
    attachments: BTreeMap<String, Attachment>,
    fresh: BTreeSet<String>,
    /// Pods whose network was taken down while their objects remain.
    detached: BTreeSet<String>,
}

impl World {
    /// A world after a restart: pods' networks are as they were, everything else is to be learned anew.
    /// Old labels decide nothing: they may have led to what a change since then undid.
    pub(crate) fn restored(attachments: Vec<Attachment>) -> Self {
        Self {
            attachments: attachments
                .into_iter()
                .map(|attachment| (attachment.uid.clone(), attachment))
                .collect(),
            ..Self::default()
        }
    }

    pub(crate) fn set_namespaces(&mut self, namespaces: BTreeMap<String, Labels>) {
        self.namespaces = Some(namespaces);
    }

    pub(crate) fn set_namespace(&mut self, name: String, labels: Option<Labels>) {
        let namespaces = self.namespaces.get_or_insert_default();
        match labels {
            Some(labels) => namespaces.insert(name, labels),
            None => namespaces.remove(&name),
        };
    }

    pub(crate) fn set_settings(&mut self, settings: Settings) {
        self.settings = Some(settings);
    }

    /// The mesh is to be removed, by this request, or is not.
    pub(crate) fn set_removal(&mut self, removal: Option<String>) {
        self.removal = removal;
    }

    /// Replaces the pods by a list; returns the uids that are no more.
    pub(crate) fn set_pods(&mut self, pods: Vec<Pod>) -> BTreeSet<String> {
        let present: BTreeSet<String> = pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        let known = self.pods.iter();
        let listed = known
            .filter(|(_, known)| known.listed)
            .map(|(uid, _)| uid.clone());
        let unknown = self
            .attachments
            .keys()
            .filter(|uid| !self.pods.contains_key(*uid));
        let gone: BTreeSet<String> = listed
            .chain(unknown.cloned())
            .filter(|uid| !present.contains(uid))
            .collect();
        for uid in &gone {
            self.remove_pod(uid);
        }
        for pod in pods {
            self.set_pod(pod, true);
        }
        gone
    }

    /// Adds or replaces a pod; returns its uid.
    pub(crate) fn set_pod(&mut self, pod: Pod, listed: bool) -> Option<String> {
        let uid = pod.metadata.uid.clone()?;
        let listed = listed || self.pods.get(&uid).is_some_and(|known| known.listed);
        self.pods.insert(uid.clone(), Known { pod, listed });
        Some(uid)
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.attachments.remove(uid);
        self.fresh.remove(uid);
        self.detached.remove(uid);
    }

    /// A pod's network was made.
    pub(crate) fn attach(&mut self, attachment: Attachment, fresh: bool) {
        let uid = attachment.uid.clone();
        self.detached.remove(&uid);
        if fresh {
            self.fresh.insert(uid.clone());
        }
        self.attachments.insert(uid, attachment);
    }

    /// A pod's network was taken down. A later network of the same pod is not meant.
    pub(crate) fn detach(&mut self, uid: &str, container_id: &str) -> bool {
        let meant = |attachment: &Attachment| attachment.container_id == container_id;
        if !self.attachments.get(uid).is_some_and(meant) {
            return false;
        }
        self.attachments.remove(uid);
        self.detached.insert(uid.into());
        true
    }

    /// The uid of a pod with a network that this container id was given for.
    pub(crate) fn attached_as(&self, container_id: &str) -> Option<String> {
        let mut attachments = self.attachments.values();
        attachments
            .find(|attachment| attachment.container_id == container_id)
            .map(|attachment| attachment.uid.clone())
    }

    /// Container ids of all networks that a runtime told of.
    pub(crate) fn containers(&self) -> Vec<(String, String)> {
        let attachments = self.attachments.values();
        attachments
            .filter(|attachment| !attachment.container_id.is_empty())
            .map(|attachment| (attachment.uid.clone(), attachment.container_id.clone()))
            .collect()
    }

    pub(crate) fn uids(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    /// What is worth remembering; nothing before it is known.
    pub(crate) fn last_known(&self) -> Option<LastKnown> {
        Some(LastKnown {
            namespaces: self.namespaces.clone()?,
            pod_overrides: self.settings?.pod_overrides,
            dns_capture: self.settings?.dns_capture,
            node_proxies: self.node_proxies(),
            removal: self.removal.clone(),
        })
    }

    /// Whether a configuration of the mesh is in force.
    pub(crate) fn configured(&self) -> bool {
        self.settings.is_some()
    }

    /// Uids of the node proxy's pods.
    pub(crate) fn node_proxies(&self) -> BTreeSet<String> {
        let proxies = self.pods.iter().filter(|(_, known)| {
            known.pod.metadata.namespace.as_deref() == Some(MESH_NAMESPACE)
                && service_account(&known.pod) == NODE_PROXY_ACCOUNT
        });
        proxies.map(|(uid, _)| uid.clone()).collect()
    }

    /// Addresses of the pods that have a plane: where kubelet's probes are made recognisable.
    pub(crate) fn meshed_addresses(&self) -> BTreeSet<IpAddr> {
        let meshed = self.pods.keys().filter_map(|uid| self.desired(uid));
        meshed
            .filter(|desired| {
                let wish = desired.wish.as_ref();
                wish.map_or(true, |wish| wish.plane != Plane::None)
            })
            .flat_map(|desired| self.addresses(&desired))
            .collect()
    }

    fn addresses(&self, desired: &Desired) -> BTreeSet<IpAddr> {
        if desired.host_network {
            return BTreeSet::new();
        }
        let status = self
            .pods
            .get(&desired.uid)
            .and_then(|known| known.pod.status.as_ref());
        let ips = status.and_then(|status| status.pod_ips.as_ref());
        let mut addresses: BTreeSet<IpAddr> = ips
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.ip.parse().ok())
            .collect();
        addresses.extend(
            desired
                .attachment
                .iter()
                .flat_map(|attachment| &attachment.addresses),
        );
        addresses
    }

    /// What is to be true of a pod; nothing if it ended.
    pub(crate) fn desired(&self, uid: &str) -> Option<Desired> {
        let pod = &self.pods.get(uid)?.pod;
        if ended(pod) || self.detached.contains(uid) {
            return None;
        }
        let metadata = &pod.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let annotations = metadata.annotations.as_ref();
        Some(Desired {
            uid: uid.into(),
            name: metadata.name.clone().unwrap_or_default(),
            service_account: service_account(pod).into(),
            host_network: host_network(pod),
            wish: self.wish(pod, &namespace),
            namespace,
            attachment: self.attachments.get(uid).cloned(),
            fresh: self.fresh.contains(uid),
            annotated: annotations.and_then(|all| all.get(annotation::REDIRECTION).cloned()),
            leaves: self.removal.is_some(),
        })
    }

    fn wish(&self, pod: &Pod, namespace: &str) -> Result<Wish, Undecided> {
        if self.removal.is_some() {
            return Ok(Wish {
                plane: Plane::None,
                // Nothing is redirected, so that what was to be left out of it does not matter.
                facts: annotations::facts(pod).unwrap_or_default(),
                remark: None,
            });
        }
        let labels = self
            .namespaces
            .as_ref()
            .and_then(|namespaces| namespaces.get(namespace))
            .ok_or_else(|| Undecided::NotYet(format!("namespace {namespace}")))?;
        let facts = plane::PodFacts {
            namespace,
            namespace_labels: Some(labels),
            labels: pod.metadata.labels.as_ref(),
            host_network: host_network(pod),
            has_sidecar: annotations::has_sidecar(pod),
        };
        let settings = self
            .settings
            .ok_or_else(|| Undecided::NotYet("the mesh configuration".into()))?;
        let refused = |error: &dyn std::fmt::Display| Undecided::Refused(error.to_string());
        let decision = plane::decide(&facts, settings.pod_overrides).map_err(|error| refused(&error))?;
        let captures_dns = plane::captures_dns(&facts, settings.pod_overrides, settings.dns_capture);
        Ok(Wish {
            plane: decision.plane,
            facts: PodFacts {
                captures_dns: captures_dns.map_err(|error| refused(&error))?,
                ..annotations::facts(pod).map_err(|error| refused(&error))?
            },
            remark: decision.remark,
        })
    }
}

fn ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true))
}

fn service_account(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.service_account_name.as_deref())
        .unwrap_or("default")
}
