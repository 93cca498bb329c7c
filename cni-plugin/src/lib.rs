//! The CNI plugin and the node agent: decide what redirects each pod of a node, install it in the kernel,
//! feed pods to the node proxy, and keep its descriptors.

pub mod agent;
pub mod attachment;
pub mod call;
pub mod descriptors;
pub mod kernel;
pub mod log;
pub mod namespace;
pub mod plugin;
pub mod redirection;
pub mod removal;
pub mod report;
pub mod runtime;
pub mod zds;
