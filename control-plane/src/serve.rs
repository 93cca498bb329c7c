//! What clients see: discovery, certificates, the agents' stream, admission, status.

pub mod admin;
pub mod agents;
pub mod callers;
pub mod certificates;
pub mod listener;
pub mod metrics;
pub mod xds;

/// The gRPC services, as generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub(crate) mod stubs {
    include!(concat!(env!("OUT_DIR"), "/servers/stubs.rs"));
}
