//! The agent's flags and environment.

use std::path::PathBuf;

use clap::Args;

/// What the user says.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Name of the node.
    #[arg(long, env = "TREFOIL_NODE")]
    pub node: String,
    /// Name of the agent's own pod, on which it says when it has undone redirection.
    #[arg(long, env = "TREFOIL_POD")]
    pub pod: Option<String>,
    /// Directory of the sockets: pods.sock, descriptors.sock, cni.sock.
    #[arg(long, env = "TREFOIL_RUN_DIR", default_value = "/run/trefoil")]
    pub run_dir: PathBuf,
    /// Directory of what must survive the agent.
    #[arg(long, env = "TREFOIL_STATE_DIR", default_value = "/var/lib/trefoil/cni")]
    pub state_dir: PathBuf,
    /// How to reach the API server; without it, as a pod does.
    #[arg(long, env = "TREFOIL_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Addresses of the control plane, https://HOST:PORT; each address of each host is a replica, and all are
    /// told.
    #[arg(
        long,
        env = "TREFOIL_CONTROL_PLANE",
        required = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub control_plane: Vec<String>,
    /// Name in the control plane's certificate.
    #[arg(
        long,
        env = "TREFOIL_CONTROL_PLANE_NAME",
        default_value = "trefoil-control-plane.trefoil-system.svc"
    )]
    pub control_plane_name: String,
    /// File with the token that authenticates this agent.
    #[arg(long, env = "TREFOIL_TOKEN", default_value = "/var/run/secrets/trefoil/token")]
    pub token: PathBuf,
    /// File with the mesh's root certificates.
    #[arg(
        long,
        env = "TREFOIL_ROOT_CERT",
        default_value = "/var/run/secrets/trefoil/root-cert.pem"
    )]
    pub root_cert: PathBuf,
    /// Text that names the node proxy's control group; without it, the uids of this node's proxy pods.
    #[arg(long, env = "TREFOIL_NODE_PROXY_CGROUP")]
    pub node_proxy_cgroup: Option<String>,
    /// Process that starts the node proxy; without it, the one that started the agent.
    #[arg(long, env = "TREFOIL_NODE_PROXY_PARENT")]
    pub node_proxy_parent: Option<i32>,
    /// Network namespace of the host; without it, the agent's own.
    #[arg(long, env = "TREFOIL_HOST_NETNS")]
    pub host_netns: Option<PathBuf>,
    /// Where network namespaces of pods are, by name.
    #[arg(long, env = "TREFOIL_NETNS_ROOT", default_value = "/run/netns")]
    pub netns_root: PathBuf,
    /// The host's /proc.
    #[arg(long, env = "TREFOIL_PROC_ROOT", default_value = "/proc")]
    pub proc_root: PathBuf,
    /// User whose connections from the host to pods are probes.
    #[arg(long, env = "TREFOIL_KUBELET_UID", default_value_t = 0)]
    pub kubelet_uid: u32,
    /// Directory where CNI plugins are; the plugin is copied there.
    #[arg(long, env = "TREFOIL_CNI_BIN_DIR", requires = "cni_conf_dir")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Directory of the CNI configuration that the plugin is to be added to.
    #[arg(long, env = "TREFOIL_CNI_CONF_DIR", requires = "cni_bin_dir")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Run directory as the plugin sees it on the host, if that differs.
    #[arg(long, env = "TREFOIL_HOST_RUN_DIR")]
    pub host_run_dir: Option<PathBuf>,
    /// State directory as the plugin sees it on the host, if that differs.
    #[arg(long, env = "TREFOIL_HOST_STATE_DIR")]
    pub host_state_dir: Option<PathBuf>,
    /// Where metrics and readiness are served.
    #[arg(long, env = "TREFOIL_METRICS_LISTEN", default_value = "[::]:15022")]
    pub metrics_listen: std::net::SocketAddr,
    /// Socket of the admin interface; by default agent/admin.sock in the run directory.
    #[arg(long, env = "TREFOIL_ADMIN_SOCKET")]
    pub admin_socket: Option<PathBuf>,
    /// Seconds to finish what was begun after a signal to end.
    #[arg(long, env = "TREFOIL_DRAIN_DEADLINE", default_value_t = 30)]
    pub drain_deadline: u64,
}

impl Options {
    /// Socket of the admin interface.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(|| self.run_dir.join("agent/admin.sock"))
    }
}
