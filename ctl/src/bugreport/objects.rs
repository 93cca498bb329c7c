//! The objects that go into a report. Secrets are no kind that is asked for, and of ConfigMaps only the mesh's own
//! configuration is.

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;
use trefoil_api::names::{MANAGER, MESH_CONFIG, MESH_NAMESPACE, label};

use super::{Report, scrub};
use crate::look;
use crate::uninstall::{name, namespace};

/// Group, version, kind, plural, and which of them.
const KINDS: [(&str, &str, &str, &str, Which); 27] = [
    ("", "v1", "Namespace", "namespaces", Which::All),
    ("", "v1", "Node", "nodes", Which::All),
    ("", "v1", "Pod", "pods", Which::Pods),
    ("", "v1", "Service", "services", Which::All),
    ("", "v1", "ServiceAccount", "serviceaccounts", Which::All),
    ("", "v1", "ConfigMap", "configmaps", Which::Configuration),
    ("", "v1", "Event", "events", Which::All),
    (
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        Which::All,
    ),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        Which::All,
    ),
    ("coordination.k8s.io", "v1", "Lease", "leases", Which::Ours),
    ("apps", "v1", "Deployment", "deployments", Which::Ours),
    ("apps", "v1", "DaemonSet", "daemonsets", Which::Ours),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        Which::Ours,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        Which::All,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        Which::All,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        Which::All,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        Which::All,
    ),
    (
        "gateway.networking.k8s.io",
        "v1",
        "GatewayClass",
        "gatewayclasses",
        Which::All,
    ),
    (
        "gateway.networking.k8s.io",
        "v1",
        "Gateway",
        "gateways",
        Which::All,
    ),
    (
        "gateway.networking.k8s.io",
        "v1",
        "HTTPRoute",
        "httproutes",
        Which::All,
    ),
    (
        "gateway.networking.k8s.io",
        "v1",
        "GRPCRoute",
        "grpcroutes",
        Which::All,
    ),
    (
        "gateway.networking.k8s.io",
        "v1beta1",
        "ReferenceGrant",
        "referencegrants",
        Which::All,
    ),
    (
        "trefoil.dev",
        "v1alpha1",
        "AuthorizationPolicy",
        "authorizationpolicies",
        Which::All,
    ),
    (
        "trefoil.dev",
        "v1alpha1",
        "PeerAuthentication",
        "peerauthentications",
        Which::All,
    ),
    (
        "trefoil.dev",
        "v1alpha1",
        "RequestAuthentication",
        "requestauthentications",
        Which::All,
    ),
    (
        "trefoil.dev",
        "v1alpha1",
        "TrafficPolicy",
        "trafficpolicies",
        Which::All,
    ),
    (
        "trefoil.dev",
        "v1alpha1",
        "DataplaneMigration",
        "dataplanemigrations",
        Which::All,
    ),
];

/// Which objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    /// Those of the mesh's own namespace.
    Ours,
    /// The mesh's configuration.
    Configuration,
    /// The mesh's own, and of others their shape.
    Pods,
}

/// Adds them, a file for each kind.
pub(super) async fn collect(report: &mut Report<'_>) -> anyhow::Result<()> {
    let client = report.planes.client().clone();
    for (group, version, kind, plural, which) in KINDS {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api = match which {
            Which::Ours | Which::Configuration => {
                Api::<DynamicObject>::namespaced_with(client.clone(), MESH_NAMESPACE, &resource)
            }
            Which::All | Which::Pods => Api::all_with(client.clone(), &resource),
        };
        let mut unseen = Vec::new();
        let listed = report.within(plural, look::list(&api, plural, &mut unseen)).await;
        for what in unseen {
            report.archive.lacks(what);
        }
        let Some(objects) = listed else { continue };
        let objects = serde_json::to_value(objects)?;
        let kept = kept(which, objects);
        if !kept.is_empty() {
            report.archive.json(&format!("objects/{plural}.json"), &kept)?;
        }
    }
    Ok(())
}

/// What of these is kept, and of those that are not ours how much.
fn kept(which: Which, objects: Value) -> Vec<Value> {
    let Value::Array(objects) = objects else {
        return Vec::new();
    };
    let objects = objects
        .into_iter()
        .filter(|one| which != Which::Configuration || name(one) == MESH_CONFIG);
    objects
        .map(|mut one| {
            let labels = &one["metadata"]["labels"];
            let ours = namespace(&one) == MESH_NAMESPACE || labels[label::MANAGED_BY] == MANAGER;
            if which == Which::Pods && !ours {
                scrub::application(&mut one);
            }
            one
        })
        .collect()
}
