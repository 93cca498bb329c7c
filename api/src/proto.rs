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
    /// Workload extension: which plane serves it.
    pub const PLACEMENT: &str = "type.googleapis.com/trefoil.v1.Placement";
    /// Workload extension: its guard.
    pub const GUARD: &str = "type.googleapis.com/trefoil.v1.Guard";
}
