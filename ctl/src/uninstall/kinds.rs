//! The objects in which a mesh can leave traces.

use std::collections::BTreeSet;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;
use trefoil_api::names::MESH_NAMESPACE;

use crate::look;

/// Objects of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Each with the plural of its kind.
    pub(super) held: Vec<(&'static str, Value)>,
    /// Kinds that are not for us to see.
    unseen: BTreeSet<&'static str>,
}

/// Group, version, kind, plural.
const KINDS: [(&str, &str, &str, &str); 23] = [
    ("", "v1", "Namespace", "namespaces"),
    ("", "v1", "Node", "nodes"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "ResourceQuota", "resourcequotas"),
    ("", "v1", "Event", "events"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    ),
    (
        "gateway.networking.k8s.io",
        "v1",
        "GatewayClass",
        "gatewayclasses",
    ),
    ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
    (
        "trefoil.dev",
        "v1alpha1",
        "AuthorizationPolicy",
        "authorizationpolicies",
    ),
    (
        "trefoil.dev",
        "v1alpha1",
        "PeerAuthentication",
        "peerauthentications",
    ),
    ("trefoil.dev", "v1alpha1", "TrafficPolicy", "trafficpolicies"),
    (
        "trefoil.dev",
        "v1alpha1",
        "DataplaneMigration",
        "dataplanemigrations",
    ),
];

impl Objects {
    /// Everything of these kinds that is for us to see.
    pub(crate) async fn all(client: &Client) -> anyhow::Result<Self> {
        let mut objects = Self::default();
        for (group, version, kind, plural) in KINDS {
            let resource =
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
            let mut unseen = Vec::new();
            for object in look::list(&api, plural, &mut unseen).await? {
                objects.held.push((plural, serde_json::to_value(object)?));
            }
            if !unseen.is_empty() {
                objects.unseen.insert(plural);
            }
        }
        Ok(objects)
    }

    /// These.
    #[cfg(test)]
    pub(crate) fn holding(held: Vec<(&'static str, Value)>) -> Self {
        Self {
            held,
            ..Self::default()
        }
    }

    /// The same, without what is not for us to see.
    #[cfg(test)]
    pub(crate) fn without(self, unseen: &[&'static str]) -> Self {
        Self {
            unseen: unseen.iter().copied().collect(),
            ..self
        }
    }

    /// Kinds that are not for us to see: that there is nothing of them is not known.
    pub(crate) fn unseen(&self) -> &BTreeSet<&'static str> {
        &self.unseen
    }

    /// Those of a kind.
    pub(crate) fn of(&self, plural: &str) -> impl Iterator<Item = &Value> {
        self.held
            .iter()
            .filter(move |(kind, _)| *kind == plural)
            .map(|(_, object)| object)
    }

    /// Whether the mesh's own processes are there.
    pub(crate) fn is_installed(&self) -> bool {
        let ours = |one: &Value| one["metadata"]["namespace"] == MESH_NAMESPACE;
        let mut all = self.of("deployments").chain(self.of("daemonsets"));
        all.any(|one| ours(one) && name(one).starts_with("trefoil-"))
    }
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The namespace of an object.
pub(crate) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// A list in an object.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether rules of admission are about a resource.
pub(crate) fn is_about(rules: &Value, (group, resource): (&str, &str)) -> bool {
    let has = |rule: &Value, field: &str, wanted: &str| {
        let said = list(&rule[field]).iter().filter_map(Value::as_str);
        said.into_iter()
            .any(|said| said == wanted || matches!(said, "*" | "*/*"))
    };
    let mut rules = list(rules).iter();
    rules.any(|rule| has(rule, "apiGroups", group) && has(rule, "resources", resource))
}
