//! The node proxy: a supervisor that owns the pods' namespaces and the control-plane stream, and worker
//! processes without any privilege that own connections and keys. Nothing here carries bytes itself:
//! that is `trefoil-dataplane-core`, inside the workers.

pub mod flags;
pub mod inherited;
pub mod sealed;
pub mod supervisor;
pub mod worker;
