//! Descriptors that this process was started with, by whoever started it: none goes on to a worker.
#![allow(unsafe_code)]

use std::io;

/// Has every descriptor above standard error closed when a program is executed (`close_range(2)`).
pub fn close_on_exec() -> io::Result<()> {
    let (first, last) = (3_u32, u32::MAX);
    // SAFETY: the call takes three numbers and no memory, and only sets a flag of open descriptors: no
    // descriptor is closed, so nobody's ownership of one ends.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
