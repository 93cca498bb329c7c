//! Two proxies, real sockets, a certificate authority in memory: what a client sends is what an application
//! gets, and nothing that is refused gets there.

mod bytes;
mod leave;
mod mesh;
mod policy;
mod report;
mod tunnel;
