//! The waypoint: what is asked for in tunnels to it, and who it speaks for towards what it serves. It acts with
//! one identity, its own, and captures nothing.

mod arrival;
mod hop;
pub mod options;
pub mod run;
pub mod serve;
pub mod target;
