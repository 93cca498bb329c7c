//! Embedded mode: a small Kubernetes-shaped API over a [store] of its own, for machines without Kubernetes.
//!
//! kube-rs and `kubectl` work against it; the control plane is a client of it like any other, over TLS, under
//! a service account of its own, so that there is no second code path. It must never grow a kind that the mesh does
//! not read, nor a way around the decisions of `authorize`.

mod authority;
mod authorize;
mod body;
mod collect;
mod columns;
mod defaults;
mod discovery;
mod kinds;
mod kubeconfig;
mod lifecycle;
mod metadata;
mod objects;
mod patch;
mod protobuf;
mod render;
mod reviews;
mod route;
mod selector;
mod serve;
mod server;
mod start;
mod status;
pub mod store;
mod strategic;
#[cfg(test)]
mod tests;
mod tokens;
mod verbs;
mod watch;

pub use self::server::Validate;
pub use self::start::{Embedded, EmbeddedConfig, EmbeddedError, start};
pub use self::status::FieldError;
