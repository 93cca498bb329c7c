//! Object changes in, changed resources out. Pure and incremental: what a change cannot affect is not looked
//! at, and any sequence of changes gives what a fresh index over the end state gives. (Of a malformed object
//! the last good version is part of that state: it stays in force.)

mod apply;
pub mod facts;
mod guards;
mod network;
mod policies;
mod relation;
mod report;
mod routes;
mod services;
mod settings;
pub mod snapshot;
mod statuses;
mod targets;
#[cfg(test)]
mod tests;
mod translate;
mod waypoints;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use trefoil_api::crd::{AuthorizationPolicySpec, FieldError, PeerAuthenticationSpec};
use trefoil_api::mesh_config::MeshConfig;
use trefoil_api::proto::istio::security::Authorization;
use trefoil_api::proto::trefoil::v1::{Authority, PodPlacement};

use facts::{
    Gateway, GatewayClass, Namespace, NetworkPolicy, Node, Pod, PolicyObject, ReferenceGrant, RouteObject,
    Service, Slice,
};
use network::Groups;
use policies::Entry;
use relation::{Findings, Relation};
pub use report::{PolicyKind, PolicyReport, Statement};
use routes::RouteKey;
pub use routes::{RouteEntry, RouteKind};
use snapshot::{Changes, Snapshot};
pub use statuses::{ObjectStatus, StatusKind};
use waypoints::Waypoint;
pub use waypoints::{Deployable, Hindrance};

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What changed. An absent object was deleted.
#[derive(Clone, Debug)]
pub enum Change {
    /// By name.
    Namespace(String, Option<Namespace>),
    /// By name.
    Node(String, Option<Node>),
    /// A pod.
    Pod(ObjectKey, Option<Pod>),
    /// A service.
    Service(ObjectKey, Option<Service>),
    /// An endpoint slice.
    Slice(ObjectKey, Option<Slice>),
    /// A network policy.
    NetworkPolicy(ObjectKey, Option<NetworkPolicy>),
    /// An AuthorizationPolicy.
    Authorization(ObjectKey, Option<PolicyObject>),
    /// A PeerAuthentication.
    PeerAuthentication(ObjectKey, Option<PolicyObject>),
    /// A Gateway.
    Gateway(ObjectKey, Option<Gateway>),
    /// Why what a waypoint consists of cannot be made.
    Hindered(ObjectKey, Option<Hindrance>),
    /// A GatewayClass, by name.
    GatewayClass(String, Option<GatewayClass>),
    /// A route.
    Route(RouteKind, ObjectKey, Option<RouteObject>),
    /// A ReferenceGrant.
    ReferenceGrant(ObjectKey, Option<ReferenceGrant>),
    /// The text of the mesh configuration.
    MeshConfig(Option<String>),
    /// What certificates are signed with from now on.
    Authority(Authority),
    /// What the agent of a node says redirects its pods.
    Placements(NodePlacements),
    /// Nobody says any longer what redirects the pods of a node: what is written on them holds again.
    PlacementsForgotten(String),
}

/// What the agent of a node says redirects its pods.
#[derive(Clone, Debug, Default)]
pub struct NodePlacements {
    /// From the agent's token.
    pub node: String,
    /// These are all pods of the node.
    pub snapshot: bool,
    /// Pods that changed.
    pub pods: Vec<PodPlacement>,
    /// Uids of pods that ended.
    pub removed: Vec<String>,
}

/// The kinds that are watched, for lists that replace all that was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    Slice,
    NetworkPolicy,
    Authorization,
    PeerAuthentication,
    Gateway,
    GatewayClass,
    HttpRoute,
    GrpcRoute,
    ReferenceGrant,
    MeshConfig,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::Slice,
        Self::NetworkPolicy,
        Self::Authorization,
        Self::PeerAuthentication,
        Self::Gateway,
        Self::GatewayClass,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::ReferenceGrant,
        Self::MeshConfig,
    ];
}

/// The index. See the module.
#[derive(Debug)]
pub struct Index {
    default_trust_domain: String,
    config: MeshConfig,
    /// The last that was understood, unless it was deleted since.
    good_config: Option<MeshConfig>,
    config_seen: bool,
    config_errors: Vec<FieldError>,
    authority: Option<Authority>,
    namespaces: BTreeMap<String, Namespace>,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<ObjectKey, Pod>,
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, Slice>,
    network_policies: BTreeMap<ObjectKey, NetworkPolicy>,
    /// That they name.
    groups: Groups,
    authorization: BTreeMap<ObjectKey, Entry<AuthorizationPolicySpec>>,
    peer_authentication: BTreeMap<ObjectKey, Entry<PeerAuthenticationSpec>>,
    gateways: BTreeMap<ObjectKey, Gateway>,
    gateway_classes: BTreeMap<String, GatewayClass>,
    hindrances: BTreeMap<ObjectKey, Hindrance>,
    routes: BTreeMap<RouteKey, RouteEntry>,
    grants: BTreeMap<ObjectKey, ReferenceGrant>,
    /// By node, then by uid of the pod. A node that never reported is absent.
    placements: BTreeMap<String, BTreeMap<String, PodPlacement>>,

    // Found from the above.
    pods_by_node: BTreeMap<String, BTreeSet<ObjectKey>>,
    pods_by_address: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    slices_by_service: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    slices_by_pod: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    slices_by_address: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// Policies against plaintext by resource name, with the workloads that name them.
    strict: BTreeMap<String, (Authorization, BTreeSet<String>)>,
    strict_of: BTreeMap<String, String>,
    /// Names of the workloads made from a slice's endpoints that are no pods.
    slice_workloads: BTreeMap<ObjectKey, BTreeSet<String>>,
    waypoints: BTreeMap<ObjectKey, Waypoint>,
    services_of_gateway: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    routes_by_service: BTreeMap<ObjectKey, BTreeSet<RouteKey>>,
    /// The waypoint that serves a service.
    service_waypoints: BTreeMap<ObjectKey, ObjectKey>,
    /// Services and the waypoints that they choose.
    services_naming: Relation,
    /// Pods and the waypoints that they or their services choose.
    pods_naming: Relation,
    /// Pods and those of their services that ask for different waypoints.
    contending: Relation,
    /// Pods and the policies about them that ask something of requests which no plane reads.
    uninspected: Relation,
    /// Pods of the mesh whose plane reads no HTTP, by namespace.
    unread: BTreeMap<String, BTreeSet<ObjectKey>>,
    findings: Findings,

    dirty: Dirty,
    /// Something that is seen beside resources may differ from what was told.
    news: bool,
    reports: BTreeMap<(PolicyKind, ObjectKey), PolicyReport>,
    statuses: BTreeMap<(StatusKind, ObjectKey), ObjectStatus>,
    snapshot: Snapshot,
    changes: Changes,
}

/// What is to be computed again.
#[derive(Debug, Default)]
struct Dirty {
    pods: BTreeSet<ObjectKey>,
    services: BTreeSet<ObjectKey>,
    slices: BTreeSet<ObjectKey>,
    authorization: BTreeSet<ObjectKey>,
    peer_authentication: BTreeSet<ObjectKey>,
    waypoints: BTreeSet<ObjectKey>,
    routes: BTreeSet<RouteKey>,
    /// Services whose own status is to be looked at.
    service_statuses: BTreeSet<ObjectKey>,
    /// Names of policies against plaintext.
    strict: BTreeSet<String>,
    settings: bool,
}

impl Index {
    /// An empty index. The trust domain is what holds unless the mesh configuration says otherwise.
    #[must_use]
    pub fn new(trust_domain: &str) -> Self {
        Self {
            default_trust_domain: trust_domain.into(),
            config: MeshConfig::default(),
            good_config: None,
            config_seen: false,
            config_errors: Vec::new(),
            authority: None,
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            network_policies: BTreeMap::new(),
            groups: Groups::new(),
            authorization: BTreeMap::new(),
            peer_authentication: BTreeMap::new(),
            gateways: BTreeMap::new(),
            gateway_classes: BTreeMap::new(),
            hindrances: BTreeMap::new(),
            routes: BTreeMap::new(),
            grants: BTreeMap::new(),
            placements: BTreeMap::new(),
            pods_by_node: BTreeMap::new(),
            pods_by_address: BTreeMap::new(),
            slices_by_service: BTreeMap::new(),
            slices_by_pod: BTreeMap::new(),
            slices_by_address: BTreeMap::new(),
            strict: BTreeMap::new(),
            strict_of: BTreeMap::new(),
            slice_workloads: BTreeMap::new(),
            waypoints: BTreeMap::new(),
            services_of_gateway: BTreeMap::new(),
            routes_by_service: BTreeMap::new(),
            service_waypoints: BTreeMap::new(),
            services_naming: Relation::default(),
            pods_naming: Relation::default(),
            contending: Relation::default(),
            uninspected: Relation::default(),
            unread: BTreeMap::new(),
            findings: Findings::default(),
            dirty: Dirty {
                settings: true,
                ..Dirty::default()
            },
            news: true,
            reports: BTreeMap::new(),
            statuses: BTreeMap::new(),
            snapshot: Snapshot::default(),
            changes: Changes::default(),
        }
    }

    /// Computes what the changes since the last call affected, and says which resources differ now.
    pub fn flush(&mut self) -> Changes {
        self.news |= !self.dirty.waypoints.is_empty();
        // Each part marks what depends on it among those that come after.
        for key in &std::mem::take(&mut self.dirty.waypoints) {
            self.compute_waypoint(key);
        }
        for key in &std::mem::take(&mut self.dirty.services) {
            self.compute_service(key);
        }
        for key in &std::mem::take(&mut self.dirty.pods) {
            self.compute_pod(key);
        }
        for key in &std::mem::take(&mut self.dirty.slices) {
            self.compute_slice(key);
        }
        for key in &std::mem::take(&mut self.dirty.authorization) {
            self.compute_authorization(key);
        }
        for key in &std::mem::take(&mut self.dirty.peer_authentication) {
            self.compute_peer_authentication(key);
        }
        for key in &std::mem::take(&mut self.dirty.routes) {
            self.compute_route(key);
        }
        for key in &std::mem::take(&mut self.dirty.service_statuses) {
            self.report_service(key);
        }
        self.compute_strict();
        self.compute_settings();
        std::mem::take(&mut self.changes)
    }

    /// Whether anything beside resources may differ from when this was asked last: names of namespaces, the
    /// configuration, replicas, findings, reports, statuses, waypoints.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The resources as of the last [`Self::flush`]; cheap.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// The mesh configuration in force.
    #[must_use]
    pub fn config(&self) -> &MeshConfig {
        &self.config
    }

    /// What is wrong with the mesh configuration that was given last.
    #[must_use]
    pub fn config_errors(&self) -> &[FieldError] {
        &self.config_errors
    }

    /// The trust domain in force.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.config
            .trust_domain
            .as_deref()
            .unwrap_or(&self.default_trust_domain)
    }

    /// Names of all namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// Keys of a kind, for lists that replace all that was known.
    #[must_use]
    pub fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        let named = |name: &String| ObjectKey::new("", name.clone());
        match kind {
            Kind::Namespace => self.namespaces.keys().map(named).collect(),
            Kind::Node => self.nodes.keys().map(named).collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Slice => self.slices.keys().cloned().collect(),
            Kind::NetworkPolicy => self.network_policies.keys().cloned().collect(),
            Kind::Authorization => self.authorization.keys().cloned().collect(),
            Kind::PeerAuthentication => self.peer_authentication.keys().cloned().collect(),
            Kind::Gateway => self.gateways.keys().cloned().collect(),
            Kind::GatewayClass => self.gateway_classes.keys().map(named).collect(),
            Kind::HttpRoute => self.route_keys(RouteKind::Http),
            Kind::GrpcRoute => self.route_keys(RouteKind::Grpc),
            Kind::ReferenceGrant => self.grants.keys().cloned().collect(),
            Kind::MeshConfig if self.config_seen => vec![ObjectKey::default()],
            Kind::MeshConfig => Vec::new(),
        }
    }

    /// Deletes an object of a kind.
    pub fn delete(&mut self, kind: Kind, key: ObjectKey) {
        self.apply(match kind {
            Kind::Namespace => Change::Namespace(key.name, None),
            Kind::Node => Change::Node(key.name, None),
            Kind::Pod => Change::Pod(key, None),
            Kind::Service => Change::Service(key, None),
            Kind::Slice => Change::Slice(key, None),
            Kind::NetworkPolicy => Change::NetworkPolicy(key, None),
            Kind::Authorization => Change::Authorization(key, None),
            Kind::PeerAuthentication => Change::PeerAuthentication(key, None),
            Kind::Gateway => Change::Gateway(key, None),
            Kind::GatewayClass => Change::GatewayClass(key.name, None),
            Kind::HttpRoute => Change::Route(RouteKind::Http, key, None),
            Kind::GrpcRoute => Change::Route(RouteKind::Grpc, key, None),
            Kind::ReferenceGrant => Change::ReferenceGrant(key, None),
            Kind::MeshConfig => Change::MeshConfig(None),
        });
    }

    fn route_keys(&self, kind: RouteKind) -> Vec<ObjectKey> {
        let of_kind = self.routes.keys().filter(|(of, _)| *of == kind);
        of_kind.map(|(_, key)| key.clone()).collect()
    }

    /// What is to be said in the status of services and of the Gateway API's objects.
    pub fn statuses(&self) -> impl Iterator<Item = &ObjectStatus> {
        self.statuses.values()
    }

    /// What is found wrong with services and pods, for people.
    pub fn findings(&self) -> impl Iterator<Item = String> {
        self.findings.iter()
    }

    /// What became of every policy.
    pub fn reports(&self) -> impl Iterator<Item = &PolicyReport> {
        self.reports.values()
    }
}
