//! HBONE: TCP connections as HTTP/2 CONNECT streams inside mutual TLS. This module speaks it, on both ends,
//! and keeps tunnels; it never decides who may pass.

mod keepalive;
mod pool;
mod request;
mod server;
mod tunnel;

use std::time::Duration;

pub use pool::{Place, Pool, PoolConfig};
pub use request::{Asked, BadRequest, Destination, Opening, baggage};
pub use server::{Incoming, serve};
pub use tunnel::OpenError;

/// What one stream may have in flight towards a reader that has not read it.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// What all streams of a tunnel may: as much as 32 stalled ones, so that few stalled streams hold up none.
const CONNECTION_WINDOW: u32 = 32 * STREAM_WINDOW;
/// The largest frame taken. Larger ones would keep other streams waiting and be held whole.
const FRAME: u32 = 64 * 1024;
/// What a stream may have queued towards a tunnel that does not take it.
const SEND_BUFFER: usize = 256 * 1024;
/// What keeping small frames may cost beyond their bytes, until their streams take them: about a quarter of
/// a million. A tunnel that holds more is ended by the library.
const SMALL_FRAMES: usize = 64 * 1024 * 1024;
/// Streams that a client may have in one tunnel.
const SERVER_STREAMS: u32 = 200;
/// Size of all headers that the server takes; the client takes a quarter.
const SERVER_HEADERS: u32 = 64 * 1024;
/// How long TLS and HTTP/2 may take to be set up.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
