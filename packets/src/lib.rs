//! Protobuf messages with file descriptors over `SOCK_SEQPACKET` Unix sockets: how the agent, the node
//! proxy's supervisor and its workers speak. One message is one packet; nothing here knows what a message
//! means, and no descriptor is kept.

mod listener;
mod register;
mod socket;
#[cfg(test)]
mod tests;

pub use listener::PacketListener;
pub use socket::{Credentials, PacketError, PacketSocket, connect, pair};

/// The largest packet that is sent or received, in bytes.
pub const MAX_PACKET: usize = 128 * 1024;
/// The most descriptors in one packet (the kernel's SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 253;
