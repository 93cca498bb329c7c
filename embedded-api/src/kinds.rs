//! The kinds that the embedded API holds: those that the mesh reads. Anything else is not found.

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The API group, empty for the core's.
    pub(crate) group: &'static str,
    /// The version.
    pub(crate) version: &'static str,
    /// The plural that paths use.
    pub(crate) plural: &'static str,
    /// The kind.
    pub(crate) kind: &'static str,
    /// Short names for `kubectl`.
    pub(crate) short: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Whether status is written through a subresource of its own.
    pub(crate) status: bool,
    /// The resource's name across groups, and in the store: `PLURAL` or `PLURAL.GROUP`.
    pub(crate) resource: &'static str,
}

impl Kind {
    /// `VERSION` or `GROUP/VERSION`, as objects say it.
    #[must_use]
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.into()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// What names several kinds at once for `kubectl get`.
    #[must_use]
    pub(crate) fn categories(&self) -> &'static [&'static str] {
        match self.kind {
            "Pod" | "Service" => &["all"],
            _ if self.group == TREFOIL => &["trefoil"],
            _ => &[],
        }
    }

    /// Whether Kubernetes defines it by a custom resource definition (it then has no strategic merge).
    #[must_use]
    pub(crate) fn custom(&self) -> bool {
        self.group == GATEWAY || self.group == TREFOIL
    }
}

const GATEWAY: &str = "gateway.networking.k8s.io";
const TREFOIL: &str = trefoil_api::names::API_GROUP;

macro_rules! kinds {
    ($($name:ident $group:literal $version:literal $plural:literal $kind:literal $resource:literal
        [$($short:literal)*] $namespaced:literal $status:literal;)*) => {
        $(
            #[doc = concat!("`", $kind, "`.")]
            pub(crate) static $name: Kind = Kind {
                group: $group, version: $version, plural: $plural, kind: $kind, short: &[$($short),*],
                namespaced: $namespaced, status: $status, resource: $resource,
            };
        )*
        /// Every kind.
        pub(crate) static ALL: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    NAMESPACE "" "v1" "namespaces" "Namespace" "namespaces" ["ns"] false true;
    NODE "" "v1" "nodes" "Node" "nodes" ["no"] false true;
    POD "" "v1" "pods" "Pod" "pods" ["po"] true true;
    SERVICE "" "v1" "services" "Service" "services" ["svc"] true true;
    SERVICE_ACCOUNT "" "v1" "serviceaccounts" "ServiceAccount" "serviceaccounts" ["sa"] true false;
    SECRET "" "v1" "secrets" "Secret" "secrets" [] true false;
    CONFIG_MAP "" "v1" "configmaps" "ConfigMap" "configmaps" ["cm"] true false;
    EVENT "" "v1" "events" "Event" "events" ["ev"] true false;
    EVENT_OF_EVENTS "events.k8s.io" "v1" "events" "Event" "events" [] true false;
    ENDPOINT_SLICE "discovery.k8s.io" "v1" "endpointslices" "EndpointSlice"
        "endpointslices.discovery.k8s.io" [] true false;
    LEASE "coordination.k8s.io" "v1" "leases" "Lease" "leases.coordination.k8s.io" [] true false;
    NETWORK_POLICY "networking.k8s.io" "v1" "networkpolicies" "NetworkPolicy"
        "networkpolicies.networking.k8s.io" ["netpol"] true false;
    GATEWAY_CLASS "gateway.networking.k8s.io" "v1" "gatewayclasses" "GatewayClass"
        "gatewayclasses.gateway.networking.k8s.io" ["gc"] false true;
    GATEWAY_KIND "gateway.networking.k8s.io" "v1" "gateways" "Gateway"
        "gateways.gateway.networking.k8s.io" ["gtw"] true true;
    HTTP_ROUTE "gateway.networking.k8s.io" "v1" "httproutes" "HTTPRoute"
        "httproutes.gateway.networking.k8s.io" [] true true;
    GRPC_ROUTE "gateway.networking.k8s.io" "v1" "grpcroutes" "GRPCRoute"
        "grpcroutes.gateway.networking.k8s.io" [] true true;
    REFERENCE_GRANT "gateway.networking.k8s.io" "v1beta1" "referencegrants" "ReferenceGrant"
        "referencegrants.gateway.networking.k8s.io" ["refgrant"] true false;
    AUTHORIZATION_POLICY "trefoil.dev" "v1alpha1" "authorizationpolicies" "AuthorizationPolicy"
        "authorizationpolicies.trefoil.dev" ["authz"] true true;
    PEER_AUTHENTICATION "trefoil.dev" "v1alpha1" "peerauthentications" "PeerAuthentication"
        "peerauthentications.trefoil.dev" ["pa"] true true;
}

/// The kind at a path.
#[must_use]
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    ALL.iter()
        .copied()
        .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The groups with their versions, the core's first, each once.
#[must_use]
pub(crate) fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let reviews = [("authentication.k8s.io", "v1"), ("authorization.k8s.io", "v1")];
    for (group, version) in ALL.iter().map(|kind| (kind.group, kind.version)).chain(reviews) {
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}
