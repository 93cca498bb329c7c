//! What this machine has of what a mesh on it needs: only looked at, nothing is made.

use std::path::Path;

use nlink::netlink::{Connection, Nftables};

/// The programs of a mesh.
const PROGRAMS: [&str; 5] = [
    "trefoil-control-plane",
    "trefoil-cni",
    "trefoil-node",
    "trefoil-sidecar",
    "trefoil-waypoint",
];

/// What it has.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This process may make network namespaces.
    pub root: bool,
    /// The kernel's version.
    pub kernel: String,
    /// That nf_tables answers, or what it says.
    pub nftables: Result<(), String>,
    /// Connections are tracked.
    pub tracking: bool,
    /// Programs of the mesh that do not lie beside this one.
    pub missing: Vec<&'static str>,
}

/// Looks at it.
pub async fn facts() -> Facts {
    let missing = PROGRAMS.into_iter().filter(|name| super::binary(name).is_err());
    Facts {
        root: rustix::process::geteuid().is_root(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        nftables: nftables().await.map_err(|error| error.to_string()),
        tracking: Path::new("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").exists(),
        missing: missing.collect(),
    }
}

async fn nftables() -> Result<(), nlink::Error> {
    Connection::<Nftables>::new()?.generation().await.map(drop)
}
