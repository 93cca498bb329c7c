//! The L4 data plane as a library of parts, shared by every plane: what it decides (resolve, balance, authorize)
//! from what it knows (`trefoil-dataplane-state`), and what it carries. It is not a framework: planes put the
//! parts together.

pub mod authorize;
pub mod balance;
pub mod drain;
pub mod forward;
pub mod guard;
pub mod hbone;
pub mod identify;
pub mod proxy;
pub mod resolve;
pub mod sockets;
pub mod telemetry;

pub use authorize::{Authorized, Denied, authorize};
pub use drain::Drain;
pub use resolve::{Target, resolve};
