//! What a policy is for: all, a namespace, or the workloads that have certain labels, services or waypoints.

use std::collections::BTreeSet;

use serde_json::Value;
use trefoil_api::crd;
use trefoil_api::names::MESH_NAMESPACE;
use trefoil_api::proto::istio::security::Scope;

use super::ObjectKey;
use super::facts::{Labels, matches_all};

/// What a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// All workloads of the mesh.
    Mesh,
    /// All of its namespace.
    Namespace,
    /// Those with these labels: of its namespace, or of every one if it is the mesh's own.
    Selector(Labels),
    /// The endpoints of these services of its namespace.
    Services(Vec<String>),
    /// What uses these waypoints of its namespace.
    Waypoints(Vec<String>),
}

/// What of a workload policies select it by.
pub(super) struct Subject<'a> {
    pub(super) pod: &'a ObjectKey,
    pub(super) labels: &'a Labels,
    pub(super) services: &'a BTreeSet<ObjectKey>,
    pub(super) waypoints: &'a BTreeSet<ObjectKey>,
}

impl Target {
    pub(super) fn of(
        namespace: &str,
        selector: Option<&crd::Selector>,
        targets: &[crd::TargetReference],
    ) -> Self {
        let names = || targets.iter().map(|target| target.name.clone()).collect();
        match selector {
            Some(selector) => Self::Selector(selector.match_labels.clone()),
            None if targets.is_empty() => Self::whole(namespace),
            None if targets.iter().all(crd::TargetReference::is_service) => Self::Services(names()),
            None if targets.iter().all(crd::TargetReference::is_gateway) => Self::Waypoints(names()),
            None => Self::whole(namespace),
        }
    }

    /// What a policy is for that names nothing, or nothing that is understood.
    fn whole(namespace: &str) -> Self {
        match namespace == MESH_NAMESPACE {
            true => Self::Mesh,
            false => Self::Namespace,
        }
    }

    /// Of an object that is not understood: as much of it as is, else the whole namespace.
    pub(super) fn guess(namespace: &str, object: &Value) -> Self {
        let read = |value: &Value| serde_json::from_value::<crd::Selector>(value.clone()).ok();
        let selector = read(&object["spec"]["selector"]).filter(|selector| !selector.match_labels.is_empty());
        let targets = object["spec"]["targetRefs"].clone();
        let targets: Vec<crd::TargetReference> = serde_json::from_value(targets).unwrap_or_default();
        Self::of(namespace, selector.as_ref(), &targets)
    }

    /// Whether it names a service of its namespace.
    pub(super) fn names_service(&self, service: &str) -> bool {
        matches!(self, Self::Services(services) if services.iter().any(|name| name == service))
    }

    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Mesh => Scope::Global,
            Self::Namespace => Scope::Namespace,
            Self::Selector(_) | Self::Services(_) | Self::Waypoints(_) => Scope::WorkloadSelector,
        }
    }

    /// The waypoints that it names.
    pub(super) fn waypoints(&self, namespace: &str) -> Vec<ObjectKey> {
        match self {
            Self::Waypoints(names) => keys(namespace, names).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a workload has to name the policy.
    pub(super) fn selects(&self, policy: &ObjectKey, subject: &Subject<'_>) -> bool {
        let here = policy.namespace == subject.pod.namespace;
        match self {
            Self::Selector(wanted) => {
                (here || policy.namespace == MESH_NAMESPACE) && matches_all(wanted, subject.labels)
            }
            Self::Services(names) => {
                here && keys(&policy.namespace, names).any(|key| subject.services.contains(&key))
            }
            Self::Waypoints(names) => {
                keys(&policy.namespace, names).any(|key| subject.waypoints.contains(&key))
            }
            Self::Mesh | Self::Namespace => false,
        }
    }

    /// Whether it is about a workload, named by it or not.
    pub(super) fn is_about(&self, policy: &ObjectKey, subject: &Subject<'_>) -> bool {
        match self {
            Self::Mesh => true,
            Self::Namespace => policy.namespace == subject.pod.namespace,
            _ => self.selects(policy, subject),
        }
    }
}

fn keys<'a>(namespace: &'a str, names: &'a [String]) -> impl Iterator<Item = ObjectKey> + 'a {
    names
        .iter()
        .map(move |name| ObjectKey::new(namespace, name.as_str()))
}
