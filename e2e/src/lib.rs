//! Tests on real network namespaces and real Kubernetes. Witnesses here are independent of the mesh's own
//! word: programs that count, a peer of our own that reads certificates, a packet capture. Nothing here may
//! decide a verdict from a log or a metric of the mesh, except where that log is what is tested.

pub mod authority;
pub mod capture;
pub mod custom_resources;
pub mod hbone;
pub mod kernel;
pub mod mesh;
pub mod programs;
pub mod report;
pub mod scale;
pub mod suites;
