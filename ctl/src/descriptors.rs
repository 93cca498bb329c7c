//! Descriptors that this process was started with. The only unsafe code here, and it must stay this small.
#![allow(unsafe_code)]

/// Closes everything above standard error (`close_range(2)`): a daemon, or a program of a pod, must not
/// hold on to what whoever started it had open. To be called first of all in `main`.
pub(crate) fn close_inherited() {
    // SAFETY: it closes descriptors, and nothing in this process owns one yet: it has just been started.
    unsafe {
        // An error is a kernel without the call (before 5.9), which leaves things as they were.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32);
    }
}
