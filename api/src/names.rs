//! The names that users type and the literals that the parts of the mesh share.

/// Labels of namespaces and pods.
pub mod label {
    /// `ambient`, `sidecar` or `none`.
    pub const DATAPLANE_MODE: &str = "trefoil.dev/dataplane-mode";
    /// Whether a pod's DNS queries are answered by its plane: `enabled` or `disabled`.
    pub const DNS_CAPTURE: &str = "trefoil.dev/dns-capture";
    /// `shared`, `namespace` or `workload`.
    pub const ISOLATION: &str = "trefoil.dev/isolation";
    /// Name of the Gateway that is the waypoint of a namespace, service or pod; `none`: none.
    pub const USE_WAYPOINT: &str = "trefoil.dev/use-waypoint";
    /// Namespace of that Gateway, where it is another.
    pub const USE_WAYPOINT_NAMESPACE: &str = "trefoil.dev/use-waypoint-namespace";
    /// What a Gateway serves as a waypoint: `service`, `workload` or `all`.
    pub const WAYPOINT_FOR: &str = "trefoil.dev/waypoint-for";
    /// Ties pods, service accounts and services to the Gateway that they are made for.
    pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
    /// Says of an object of a waypoint, its pods included, who made it: [`super::MANAGER`]. Nobody else may.
    pub const MANAGED_BY: &str = "trefoil.dev/managed-by";
    /// Locality of a node.
    pub const REGION: &str = "topology.kubernetes.io/region";
    /// Locality of a node.
    pub const ZONE: &str = "topology.kubernetes.io/zone";
}

/// Annotations.
pub mod annotation {
    /// What redirects a pod now, written by the agent for people to read: `node`, `sidecar`, `none`.
    pub const REDIRECTION: &str = "trefoil.dev/redirection";
    /// On the mesh's configuration: a request that agents undo redirection, since the mesh is being removed; on an
    /// agent's pod: the request that it has met. [`NO_REMOVAL`] takes a request back; nothing at all says nothing.
    pub const REMOVAL: &str = "trefoil.dev/removal";
    /// See [`REMOVAL`].
    pub const NO_REMOVAL: &str = "none";
    /// How many pods a waypoint has, of its Gateway; 1 unless it says otherwise.
    pub const REPLICAS: &str = "trefoil.dev/replicas";
    /// Comma-separated ports.
    pub const EXCLUDE_INBOUND_PORTS: &str = "trefoil.dev/exclude-inbound-ports";
    /// Comma-separated ports.
    pub const EXCLUDE_OUTBOUND_PORTS: &str = "trefoil.dev/exclude-outbound-ports";
    /// Comma-separated address ranges.
    pub const EXCLUDE_OUTBOUND_CIDRS: &str = "trefoil.dev/exclude-outbound-cidrs";
    /// A quantity.
    pub const SIDECAR_CPU_REQUEST: &str = "trefoil.dev/sidecar-cpu-request";
    /// A quantity.
    pub const SIDECAR_CPU_LIMIT: &str = "trefoil.dev/sidecar-cpu-limit";
    /// A quantity.
    pub const SIDECAR_MEMORY_REQUEST: &str = "trefoil.dev/sidecar-memory-request";
    /// A quantity.
    pub const SIDECAR_MEMORY_LIMIT: &str = "trefoil.dev/sidecar-memory-limit";
    /// What the sidecar logs: a level, or `TARGET=LEVEL,…`.
    pub const SIDECAR_LOG_LEVEL: &str = "trefoil.dev/sidecar-log-level";
    /// The sidecar's threads.
    pub const SIDECAR_CONCURRENCY: &str = "trefoil.dev/sidecar-concurrency";
}

/// Extensions of workloads over xDS.
pub mod extension {
    /// `trefoil.v1.Guard`.
    pub const GUARD: &str = "trefoil.dev/guard";
    /// `trefoil.v1.HttpRequestMatch`, of matches in policies.
    pub const HTTP: &str = "trefoil.dev/http";
    /// `trefoil.v1.Network`.
    pub const NETWORK: &str = "trefoil.dev/network";
    /// `trefoil.v1.Placement`.
    pub const PLACEMENT: &str = "trefoil.dev/placement";
}

/// HBONE headers of Trefoil's own.
pub mod header {
    /// The xDS uid of the workload that the client meant: a reused address is noticed by it.
    pub const DESTINATION_UID: &str = "trefoil-destination-uid";
    /// A forwarded identity: the client's SPIFFE id, or [`NOBODY`] for one that has proved none.
    pub const PEER: &str = "trefoil-peer";
    /// The value of [`PEER`] for a client outside the mesh.
    pub const NOBODY: &str = "none";
}

/// Ports that planes listen on, in a pod's namespace unless said otherwise.
pub mod port {
    /// Captured outbound connections.
    pub const OUTBOUND: u16 = 15001;
    /// Captured inbound plaintext.
    pub const INBOUND: u16 = 15006;
    /// HBONE.
    pub const HBONE: u16 = 15008;
    /// The control plane's: xDS, certificates and the agents' stream over TLS.
    pub const CONTROL_PLANE: u16 = 15012;
    /// The control plane's metrics and readiness.
    pub const CONTROL_PLANE_METRICS: u16 = 15014;
    /// The control plane's admission webhooks.
    pub const WEBHOOK: u16 = 15017;
    /// Metrics.
    pub const METRICS: u16 = 15020;
    /// Captured DNS queries, UDP and TCP.
    pub const DNS: u16 = 15053;
    /// Readiness.
    pub const READINESS: u16 = 15021;
    /// A sidecar's listener of the same purpose: 100 above the node proxy's.
    pub const SIDECAR_OUTBOUND: u16 = 15101;
    /// See [`SIDECAR_OUTBOUND`].
    pub const SIDECAR_INBOUND: u16 = 15106;
    /// See [`SIDECAR_OUTBOUND`].
    pub const SIDECAR_HBONE: u16 = 15108;
    /// See [`SIDECAR_OUTBOUND`].
    pub const SIDECAR_DNS: u16 = 15153;

    /// Ports that no tunnel may end at: a plane would be talking to itself.
    pub const RESERVED: [u16; 8] = [
        OUTBOUND,
        INBOUND,
        HBONE,
        SIDECAR_OUTBOUND,
        SIDECAR_INBOUND,
        SIDECAR_HBONE,
        DNS,
        SIDECAR_DNS,
    ];
}

/// User ids.
pub mod uid {
    /// The sidecar's: its own traffic is exempt from redirection by it.
    pub const SIDECAR: u32 = 15008;
    /// The waypoint's, on Kubernetes.
    pub const WAYPOINT: u32 = 15009;
    /// The first of the workers', one each.
    pub const FIRST_WORKER: u32 = 15100;
}

/// Marks of sockets and connections.
pub mod mark {
    /// Set on the node proxy's sockets.
    pub const PROXY: u32 = 0x539;
    /// Set on connections that keep the client's source address.
    pub const SOURCE_PRESERVED: u32 = 0x111;
    /// What of a mark is compared.
    pub const MASK: u32 = 0xfff;
}

/// Addresses that probes of the host are rewritten to.
pub mod probe {
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// IPv4.
    pub const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 15, 8);
    /// IPv6.
    pub const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd15, 0x8, 0x7472, 0x6566, 0, 0, 0, 1);
}

/// The mesh's own namespace.
pub const MESH_NAMESPACE: &str = "trefoil-system";
/// The trust domain unless set.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The audience of tokens that the control plane accepts.
pub const TOKEN_AUDIENCE: &str = "trefoil-ca";
/// The API group of the mesh's own kinds.
pub const API_GROUP: &str = "trefoil.dev";
/// ConfigMap of mesh-wide configuration, key `mesh.yaml`.
pub const MESH_CONFIG: &str = "trefoil-mesh";
/// Key in [`MESH_CONFIG`].
pub const MESH_CONFIG_KEY: &str = "mesh.yaml";
/// xDS name of the one resource of mesh-wide settings.
pub const MESH_SETTINGS: &str = "mesh";
/// ConfigMap with the root, key `root-cert.pem`, in every namespace.
pub const ROOT_CONFIG_MAP: &str = "trefoil-ca-root";
/// Key of the root in [`ROOT_CONFIG_MAP`], and file name where it is mounted.
pub const ROOT_KEY: &str = "root-cert.pem";
/// Secret with the certificate authority.
pub const CA_SECRET: &str = "trefoil-ca";
/// The cluster's id in workload uids.
pub const CLUSTER_ID: &str = "Kubernetes";
/// The GatewayClass of waypoints.
pub const WAYPOINT_CLASS: &str = "trefoil-waypoint";
/// Who answers for Gateways of Trefoil's classes.
pub const GATEWAY_CONTROLLER: &str = "trefoil.dev/gateway-controller";
/// Value of [`label::MANAGED_BY`].
pub const MANAGER: &str = "gateway-controller";
/// Name of the container of a waypoint's pod.
pub const WAYPOINT_CONTAINER: &str = "trefoil-waypoint";
/// Name of the injected sidecar container.
pub const SIDECAR_CONTAINER: &str = "trefoil-sidecar";

/// The xDS uid of a pod's workload.
#[must_use]
pub fn workload_uid(namespace: &str, pod: &str) -> String {
    format!("{CLUSTER_ID}//Pod/{namespace}/{pod}")
}
