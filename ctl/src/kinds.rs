//! The kinds of objects that are spoken of by short names, as in other tools of this field.

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

#[cfg(test)]
mod tests;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    /// Its objects are in namespaces.
    pub(crate) namespaced: bool,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
) -> Kind {
    Kind {
        group,
        version,
        name,
        plural,
        short,
        namespaced: true,
    }
}

const fn cluster(kind: Kind) -> Kind {
    Kind {
        namespaced: false,
        ..kind
    }
}

/// What the mesh reads.
const KINDS: [Kind; 18] = [
    cluster(kind("", "v1", "Namespace", "namespaces", &["ns"])),
    cluster(kind("", "v1", "Node", "nodes", &["no"])),
    kind("", "v1", "Pod", "pods", &["po"]),
    kind("", "v1", "Service", "services", &["svc"]),
    kind("", "v1", "ServiceAccount", "serviceaccounts", &["sa"]),
    kind("", "v1", "ConfigMap", "configmaps", &["cm"]),
    kind("", "v1", "Secret", "secrets", &[]),
    kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &[]),
    kind("coordination.k8s.io", "v1", "Lease", "leases", &[]),
    kind(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        &["netpol"],
    ),
    kind(
        "trefoil.dev",
        "v1alpha1",
        "AuthorizationPolicy",
        "authorizationpolicies",
        &["ap", "policy", "policies"],
    ),
    kind(
        "trefoil.dev",
        "v1alpha1",
        "PeerAuthentication",
        "peerauthentications",
        &["pa"],
    ),
    kind("gateway.networking.k8s.io", "v1", "Gateway", "gateways", &["gtw"]),
    cluster(kind(
        "gateway.networking.k8s.io",
        "v1",
        "GatewayClass",
        "gatewayclasses",
        &["gc"],
    )),
    kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", &[]),
    kind("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes", &[]),
    kind(
        "gateway.networking.k8s.io",
        "v1beta1",
        "ReferenceGrant",
        "referencegrants",
        &["refgrant"],
    ),
    cluster(kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd"],
    )),
];

impl Kind {
    /// The kind that a user means by `pods`, `pod`, `po` or `Pod`.
    pub(crate) fn named(text: &str) -> anyhow::Result<Self> {
        let lower = text.to_ascii_lowercase();
        let plain = lower.split('.').next().unwrap_or_default();
        let found = KINDS.iter().find(|kind| {
            kind.plural == plain || kind.name.eq_ignore_ascii_case(plain) || kind.short.contains(&plain)
        });
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.plural).collect();
            anyhow::anyhow!("{text:?} is not a kind that the mesh reads: {}", names.join(", "))
        })
    }

    /// The kind that an object says it is.
    pub(crate) fn of(object: &DynamicObject) -> anyhow::Result<Self> {
        let types = object
            .types
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("an object without apiVersion and kind"))?;
        let found = KINDS
            .iter()
            .find(|kind| kind.name == types.kind && kind.api_version() == types.api_version);
        found.copied().ok_or_else(|| {
            anyhow::anyhow!(
                "{} {} is not a kind that the mesh reads",
                types.api_version,
                types.kind
            )
        })
    }

    /// Whether the control plane says in its status what has become of it.
    pub(crate) fn is_policy(&self) -> bool {
        matches!(self.name, "AuthorizationPolicy" | "PeerAuthentication")
    }

    /// As in `pod/cache`.
    pub(crate) fn singular(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// As in Kind.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// As in `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.into()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As the API server serves it.
    pub(crate) fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.name);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// The objects of this kind in a namespace, or in all.
    pub(crate) fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) if self.namespaced => {
                Api::namespaced_with(client.clone(), namespace, &self.resource())
            }
            _ => Api::all_with(client.clone(), &self.resource()),
        }
    }
}
