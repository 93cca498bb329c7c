//! The L4 data plane as a library of parts, shared by every plane: what a process knows (state, discovery,
//! certificates), what it decides from that (resolve, balance, authorize), and what it carries. It is not a
//! framework: planes put the parts together.

pub mod authorize;
pub mod balance;
pub mod certificates;
pub mod discovery;
pub mod drain;
pub mod forward;
pub mod guard;
pub mod hbone;
pub mod identify;
pub mod proxy;
pub mod resolve;
pub mod sockets;
pub mod state;
pub mod telemetry;
pub mod tls;

pub use authorize::{Authorized, Denied, authorize};
pub use certificates::Certificates;
pub use drain::Drain;
pub use resolve::{Target, resolve};
pub use state::Store;
