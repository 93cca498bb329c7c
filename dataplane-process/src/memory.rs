//! How much freed memory the allocator keeps at hand. Left to itself, glibc gives every freed frame back to the
//! kernel, and the next one costs a page fault for each 4 KiB. It frees nothing and bounds nothing else.

#![allow(unsafe_code)]

/// What each arena (there is about one for each thread) keeps at its end.
const KEPT: libc::c_int = 2 * 1024 * 1024;
/// Pieces from this size on are mapped on their own, and given back when freed. No buffer is as large.
const MAPPED: libc::c_int = 1024 * 1024;

/// Keeps what the buffers of a few busy connections take. To be called before connections are carried.
pub fn keep_buffers() {
    for (parameter, value) in [
        // Arenas of threads keep this much, whatever the threshold for trimming is.
        (libc::M_TOP_PAD, KEPT),
        (libc::M_TRIM_THRESHOLD, 2 * KEPT),
        (libc::M_MMAP_THRESHOLD, MAPPED),
    ] {
        // SAFETY: sets a number under the allocator's own lock; no pointer goes in or out, and memory that is
        // allocated stays as it is.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            tracing::debug!(parameter, value, "the allocator knows no such parameter");
        }
    }
}
