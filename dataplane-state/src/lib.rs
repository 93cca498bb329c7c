//! What a data plane process knows: the mesh as the control plane tells it (state), how it hears of it
//! (discovery), and the certificates and TLS that its identities act with. It decides nothing about a
//! connection and carries none.

pub mod certificates;
pub mod discovery;
mod layer;
pub mod state;
pub mod tls;

pub use certificates::Certificates;
pub use layer::Layer;
pub use state::Store;
