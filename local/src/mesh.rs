//! The names of everything that a mesh on this machine consists of: network namespaces, files, addresses.
//! Pure: `local down` finds what a crashed daemon left by these names alone.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

#[cfg(test)]
mod tests;

/// Where meshes of this machine live.
pub const STATE_ROOT: &str = "/run/trefoil/local";
/// Where network namespaces are named.
pub const NETNS_ROOT: &str = "/run/netns";
/// The address of the control plane, in the namespace of the network between nodes.
pub const LAN_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// See [`LAN_V4`].
pub const LAN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 1);
/// The port of the embedded API.
pub const API_PORT: u16 = 6443;
/// The gateway of every pod over IPv6: the node's end of its link.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A mesh on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Its name, the prefix of its network namespaces.
    pub name: String,
}

/// A node of it, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub u8);

impl Mesh {
    /// The mesh of a name. Errors where the name cannot be part of a namespace's name.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        anyhow::ensure!(
            !name.is_empty() && name.len() <= 20 && name.bytes().all(valid),
            "--mesh {name:?}: up to 20 lower-case letters, digits and hyphens"
        );
        Ok(Self { name: name.into() })
    }

    /// Its state.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(STATE_ROOT).join(&self.name)
    }

    /// The daemon's control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("daemon.sock")
    }

    /// Whom its network namespaces are marked to belong to.
    pub fn owner(&self) -> String {
        format!("trefoil-local-{}", self.name)
    }

    /// Where the daemon's process id is written.
    pub fn pid_file(&self) -> PathBuf {
        self.directory().join("daemon.pid")
    }

    /// The daemon's output: beside the mesh's state, which the daemon makes anew.
    pub fn daemon_log(&self) -> PathBuf {
        std::env::temp_dir().join(format!("trefoil-local-{}.log", self.name))
    }

    /// The kubeconfig of this machine's users.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory().join("kubeconfig")
    }

    /// The root of the mesh's certificates.
    pub fn root_certificate(&self) -> PathBuf {
        self.directory().join("root").join("root-cert.pem")
    }

    /// Where pods' own proxies see their program: as a user of their own, they may not look into every folder that
    /// it may be built in, such as a home.
    pub fn program(&self, binary: &str) -> PathBuf {
        self.directory().join("bin").join(binary)
    }

    /// The control plane's admin socket.
    pub fn control_plane_admin(&self) -> PathBuf {
        self.directory().join("control-plane").join("admin.sock")
    }

    /// Output of a process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.directory().join("logs").join(format!("{process}.log"))
    }

    /// The namespace of the network between nodes.
    pub fn lan_netns(&self) -> String {
        format!("{}-lan", self.name)
    }

    /// The namespace of a node.
    pub fn node_netns(&self, node: Node) -> String {
        format!("{}-{}", self.name, node.name())
    }

    /// The namespace of a pod.
    pub fn pod_netns(&self, namespace: &str, pod: &str) -> String {
        format!("{}-{namespace}-{pod}", self.name)
    }

    /// The run directory of a node's agent and proxy.
    pub fn node_directory(&self, node: Node) -> PathBuf {
        self.directory().join(node.name())
    }

    /// The files of a pod.
    pub fn pod_directory(&self, namespace: &str, pod: &str) -> PathBuf {
        self.directory().join("pods").join(namespace).join(pod)
    }

    /// The admin socket of a pod's sidecar.
    pub fn sidecar_admin(&self, namespace: &str, pod: &str) -> PathBuf {
        self.pod_directory(namespace, pod)
            .join("sidecar")
            .join("admin.sock")
    }
}

impl Node {
    /// The name of its Node object.
    pub fn name(self) -> String {
        format!("n{}", self.0)
    }

    /// The node of a name such as `n2`, or of a number.
    pub fn parse(name: &str) -> Option<Self> {
        let number = name.strip_prefix('n').unwrap_or(name).parse().ok()?;
        (1..=99).contains(&number).then_some(Self(number))
    }

    /// Its address between nodes.
    pub fn address_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, 0, 10 + self.0)
    }

    /// See [`Self::address_v4`].
    pub fn address_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0x10 + u16::from(self.0))
    }

    /// The address of one of its pods; 1 is the node's own, the gateway.
    pub fn pod_v4(self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.0, index)
    }

    /// See [`Self::pod_v4`].
    pub fn pod_v6(self, index: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(self.0), 0, 0, 0, u16::from(index))
    }
}
