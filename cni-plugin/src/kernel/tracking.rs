//! How connection tracking of a pod's namespace takes up connections: from their first packet or not at all. It
//! must be so before a table is made, which is what turns tracking on: a connection that the pod already has would
//! be taken for a new one halfway, and redirected into a reset. Must never be done to the host's namespace.

use std::io;
use std::os::fd::AsFd;

use nlink::netlink::netfilter::{ConntrackFilter, ConntrackStatus, IpProtocol};
use nlink::netlink::{Connection, Netfilter};
use trefoil_api::names::mark;

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

/// Forgets connections that began while nothing was redirected; they go on, untracked. Their entries would let a
/// later SYN pass unredirected. For a namespace that a plane has just begun to redirect. Entries that routing needs
/// (marked) or that rewrite addresses stay.
pub async fn forget_unredirected(namespace: &Namespace) -> Result<(), KernelError> {
    let rewritten = ConntrackStatus::SRC_NAT | ConntrackStatus::DST_NAT;
    let unredirected = ConntrackFilter::new()
        .proto(IpProtocol::Tcp)
        .mark(0, mark::MASK)
        .status(ConntrackStatus::empty(), rewritten);
    let connection = Connection::<Netfilter>::new_in(namespace.as_fd())?;
    connection.del_conntrack_matching(&unredirected).await?;
    Ok(())
}
