//! The contract of Trefoil, and nothing else: messages, names, identity, policy and its evaluation, the
//! decision which plane a pod gets. Pure: no I/O, no clock, no randomness.

pub mod crd;
pub mod exclusions;
pub mod identity;
pub mod mesh_config;
pub mod names;
pub mod network_policy;
pub mod path;
pub mod plane;
pub mod policy;
pub mod proto;
pub mod question;
pub mod routes;

pub use identity::Identity;
