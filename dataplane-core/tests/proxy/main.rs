//! Two proxies, real sockets, a certificate authority in memory: what a client sends is what an application
//! gets, and nothing that is refused gets there.

// In a test of its own, a helper is not seen to be one.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod asked;
mod bytes;
mod leave;
mod lines;
mod mesh;
mod policy;
// The tests of the waypoint use it too, and each another part.
#[allow(dead_code)]
mod raw;
mod report;
mod rotation;
mod settings;
mod tunnel;
