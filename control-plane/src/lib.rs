//! The control plane as a library: objects in, per-client resources out.

pub mod embedded;
pub mod store;
