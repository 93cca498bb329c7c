//! HBONE: TCP connections as HTTP/2 CONNECT streams inside mutual TLS. This module speaks it, on both ends,
//! and keeps tunnels; it never decides who may pass.

mod keepalive;
mod pool;
mod request;
mod server;
mod tunnel;
mod window;

use std::time::Duration;

pub use pool::{Connected, Place, Pool, PoolConfig};
pub use request::{Asked, BadRequest, Claim, Destination, Opening, baggage};
pub use server::{Incoming, serve};
pub use tunnel::OpenError;
pub use window::{Window, Windows};

/// The largest frame taken. Larger ones would keep other streams waiting and be held whole.
const FRAME: u32 = 64 * 1024;
/// What TLS may hold towards a socket that does not take it: a frame with its head and what else is behind it. The
/// library's default is exactly a frame without: its last nine bytes became a record and a packet of their own.
pub(crate) const TLS_BUFFER: usize = 2 * FRAME as usize;
/// What keeping small frames may cost beyond their bytes, until their streams take them: about a quarter of
/// a million. A tunnel that holds more is ended by the library.
const SMALL_FRAMES: usize = 64 * 1024 * 1024;
/// Streams that a client may have in one tunnel.
const SERVER_STREAMS: u32 = 200;
/// Size of all headers that the server takes; the client takes a quarter.
const SERVER_HEADERS: u32 = 64 * 1024;
/// How long TLS and HTTP/2 may take to be set up.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
