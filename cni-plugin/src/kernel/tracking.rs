//! How connection tracking of a pod's namespace takes up connections: from their first packet or not at all. It
//! must be so before a table is made, which is what turns tracking on: a connection that the pod already has would
//! be taken for a new one halfway, and redirected into a reset. Must never be done to the host's namespace.

use std::io;

use super::KernelError;
use crate::namespace::Namespace;

/// Whether tracking takes up connections halfway (`nf_conntrack_tcp_loose`); of the namespace of whoever opens it.
const TAKE_UP_HALFWAY: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose";

/// Leaves untracked what did not begin with a SYN under tracking. Nobody evades redirection by it: what is not
/// tracked leaves no entry, unredirected, for a later SYN to pass under.
pub(super) fn track_from_the_first_packet(namespace: &Namespace) -> Result<(), KernelError> {
    let strict = || -> io::Result<()> {
        if std::fs::read_to_string(TAKE_UP_HALFWAY)?.trim() == "0" {
            return Ok(());
        }
        std::fs::write(TAKE_UP_HALFWAY, "0")
    };
    namespace.run(strict).map_err(KernelError::Tracking)
}
