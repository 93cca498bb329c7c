//! Whether this machine can take a mesh of its own. Pure.

use trefoil_local::machine::Facts;

use super::Looked;
use super::nodes::at_least;

/// Of what the machine says.
pub(super) fn judged(facts: &Facts) -> Vec<Looked> {
    let root = match facts.root {
        true => Looked::good("user", "root"),
        false => Looked::bad(
            "user",
            "not root, who alone makes network namespaces",
            "run `trefoilctl local` as root",
        ),
    };
    let nftables = match &facts.nftables {
        Ok(()) => Looked::good("nf_tables", "answers"),
        Err(error) if !facts.root => Looked::unknown("nf_tables", format!("asks for root: {error}")),
        Err(error) => Looked::bad("nf_tables", error, "load the kernel module nf_tables"),
    };
    let tracking = match facts.tracking {
        true => Looked::good("connection tracking", "there"),
        false => Looked::bad(
            "connection tracking",
            "no /proc/sys/net/netfilter/nf_conntrack_tcp_loose",
            "load the kernel module nf_conntrack",
        ),
    };
    let mut looked = vec![
        root,
        at_least("kernel", &facts.kernel, (5, 2), "a newer kernel"),
        nftables,
        tracking,
    ];
    if !facts.missing.is_empty() {
        let programs = facts.missing.join(", ");
        looked.push(Looked::bad(
            "programs",
            format!("{programs} missing beside trefoilctl"),
            "build the whole workspace",
        ));
    }
    looked
}
