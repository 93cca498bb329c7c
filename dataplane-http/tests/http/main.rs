//! The engine over real sockets, with real HTTP servers as applications: clients prove who they are by TLS, policy
//! and workloads arrive as the control plane sends them.

mod carry;
mod plane;
mod policy;
mod refuse;
mod resilience;
mod routes;
