//! Delta discovery: `session` decides what a client is to be sent (pure), `hub` hands changes to all clients,
//! `stream` carries. A client that is slow costs one set of names and holds up nobody.

mod body;
mod hub;
mod response;
mod service;
mod session;
mod standing;
mod stream;
mod turns;

pub use hub::{ClientSummary, Hub, TypeStanding, Who};
pub use response::Response;
pub use session::{Event, Session, TypeSummary};
pub use stream::Discovery;
