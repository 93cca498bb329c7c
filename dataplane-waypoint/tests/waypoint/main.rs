//! A client, a server, and the waypoint between them, with real sockets: who gets through, as whom, and that
//! nobody gets around it.

// In a test of its own, a helper is not seen to be one.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod believe;
mod fixture;
#[path = "../../../dataplane-core/tests/proxy/lines.rs"]
mod lines;
#[allow(dead_code)]
#[path = "../../../dataplane-core/tests/proxy/mesh.rs"]
mod mesh;
#[allow(dead_code)]
#[path = "../../../dataplane-core/tests/proxy/raw.rs"]
mod raw;
mod requests;
mod through;
