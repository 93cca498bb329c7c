//! HTTP in the mesh, the same wherever a plane reads it: what a request is ([`head`]), where it goes
//! ([`routing`], [`filters`]), and how it is carried ([`engine`]). It decides about bytes that a plane gives it and
//! never opens a socket itself: planes carry ([`seam::Carrier`]).

pub mod answer;
mod body;
mod bytes;
pub mod detect;
pub mod engine;
pub mod filters;
mod grpc;
pub mod head;
mod http2;
mod identity;
mod incoming;
mod interim;
mod mirror;
mod parts;
mod request;
mod retry;
pub mod routing;
pub mod seam;
#[cfg(test)]
mod spelling;
pub mod telemetry;
mod undeclared;
mod under_way;
mod upgrade;
mod upstream;
mod websocket;
mod wire;

pub use engine::{Config, Engine};
pub use parts::Parts;
pub use routing::Routes;
pub use seam::{Carrier, Downstream, Io, OpenFailure, Opened, Permit, Server};
pub use undeclared::Undeclared;
