//! The control plane as a library: objects in, per-client resources out.

pub mod assemble;
pub mod ca;
pub mod deployment;
pub mod objects;
mod plane_pod;
pub mod serve;
pub mod upkeep;
pub mod webhook;
