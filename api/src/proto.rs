//! The messages generated from `proto/`. Their documentation is in the `.proto` files.
#![allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/proto.rs"));

/// Type URLs of the resources served over xDS.
pub mod type_url {
    /// Workloads and services: `istio.workload.Address`.
    pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
    /// Authorization policies: `istio.security.Authorization`.
    pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
    /// The mesh-wide settings: `trefoil.v1.MeshSettings`.
    pub const MESH_SETTINGS: &str = "type.googleapis.com/trefoil.v1.MeshSettings";
    /// Authorization policies with what they ask of HTTP, for planes that read it: `istio.security.Authorization`
    /// with extensions. The same names as under [`AUTHORIZATION`], of which a plane subscribes to one.
    pub const HTTP_AUTHORIZATION: &str = "type.googleapis.com/trefoil.v1.HttpAuthorization";
    /// Routes: `trefoil.v1.HttpRoute`.
    pub const HTTP_ROUTE: &str = "type.googleapis.com/trefoil.v1.HttpRoute";
    /// Match extension of policies: `trefoil.v1.HttpRequestMatch`.
    pub const HTTP_REQUEST_MATCH: &str = "type.googleapis.com/trefoil.v1.HttpRequestMatch";
    /// Workload extension: which plane serves it.
    pub const PLACEMENT: &str = "type.googleapis.com/trefoil.v1.Placement";
    /// Workload extension: what NetworkPolicies say of it.
    pub const NETWORK: &str = "type.googleapis.com/trefoil.v1.Network";
    /// Workload extension: its guard.
    pub const GUARD: &str = "type.googleapis.com/trefoil.v1.Guard";
}
