//! A mount namespace of the calling thread's own. The only unsafe code here, and it must stay this small.
#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Leaves the mount namespace for a copy of it.
pub(super) fn unshare() -> std::io::Result<()> {
    // SAFETY: only unsharing the table of descriptors is unsafe (see `unshare_unsafe`), and it stays shared.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?)
}
