//! HTTP/2 at either end, over the library of the frames itself: the one above it can neither say nor hear interim
//! responses. What is here is one stream's life: its head, its bodies with the other end's room for them, its end. What
//! a request is, and where it goes, is not known here.

mod body;
mod client;
mod server;
mod turn;

pub(crate) use body::Received;
pub(crate) use client::{Sender, connect};
pub(crate) use server::{Asking, Stream, serve};

/// What one stream may be sent before it is read, and all of a connection.
const WINDOWS: (u32, u32) = (256 * 1024, 4 * 1024 * 1024);
