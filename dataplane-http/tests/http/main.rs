//! The engine over real sockets, with real HTTP servers as applications: clients prove who they are by TLS, policy
//! and workloads arrive as the control plane sends them.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod answers;
mod carry;
mod client_end;
mod deadline;
mod frames;
mod interim;
mod lines;
mod peers;
mod plane;
mod policy;
mod refuse;
mod resilience;
mod routes;
mod under_way;
mod websocket;
