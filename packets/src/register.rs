//! Registers an owned descriptor with the reactor. The only unsafe code here, and it must stay this small.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor for reading and writing.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and stays open as the same description until it is dropped: `AsyncFd`
    // owns it, nobody here replaces it, and OwnedFd::as_raw_fd always returns the same number.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}
