//! The CNI plugin and the node agent: decide what redirects each pod of a node, install it in the kernel,
//! feed pods to the node proxy, and keep its descriptors.

pub mod kernel;
pub mod namespace;
pub mod redirection;
