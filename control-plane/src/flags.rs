//! The flags, each also as an environment variable `TREFOIL_<FLAG>`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use trefoil_api::names::{DEFAULT_TRUST_DOMAIN, TOKEN_AUDIENCE};

/// The control plane of Trefoil: objects in, per-client resources out.
#[derive(Debug, Parser)]
#[command(name = "trefoil-control-plane", version)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve.
    Run(Box<Run>),
    /// Ask a running control plane through its admin socket.
    Admin(Admin),
    /// Print the definitions of the mesh's own kinds, for `kubectl apply -f -`.
    Crds,
}

/// How to serve.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Run {
    /// Embedded mode: serve a small Kubernetes-shaped API over a store in this folder.
    #[arg(long, env = "TREFOIL_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Addresses of the embedded API.
    #[arg(
        long,
        env = "TREFOIL_API_LISTEN",
        default_value = "127.0.0.1:6443",
        value_delimiter = ',',
        value_name = "ADDR:PORT"
    )]
    pub(crate) api_listen: Vec<SocketAddr>,
    /// Where to write the embedded API's admin kubeconfig.
    #[arg(long, env = "TREFOIL_KUBECONFIG_OUT", requires = "store", value_name = "FILE")]
    pub(crate) kubeconfig_out: Option<PathBuf>,
    /// The cluster; absent: the cluster that this runs in.
    #[arg(
        long,
        env = "TREFOIL_KUBECONFIG",
        conflicts_with = "store",
        value_name = "FILE"
    )]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Discovery, certificates and agents.
    #[arg(
        long,
        env = "TREFOIL_LISTEN",
        default_value = "[::]:15012",
        value_name = "ADDR:PORT"
    )]
    pub(crate) listen: SocketAddr,
    /// Admission.
    #[arg(
        long,
        env = "TREFOIL_WEBHOOK_LISTEN",
        default_value = "[::]:15017",
        value_name = "ADDR:PORT"
    )]
    pub(crate) webhook_listen: SocketAddr,
    /// Metrics and readiness.
    #[arg(
        long,
        env = "TREFOIL_METRICS_LISTEN",
        default_value = "[::]:15014",
        value_name = "ADDR:PORT"
    )]
    pub(crate) metrics_listen: SocketAddr,
    /// The admin interface.
    #[arg(
        long,
        env = "TREFOIL_ADMIN_SOCKET",
        default_value = "/run/trefoil/control-plane/admin.sock",
        value_name = "PATH"
    )]
    pub(crate) admin_socket: PathBuf,
    /// Who vouches for identities, unless the mesh configuration says otherwise.
    #[arg(long, env = "TREFOIL_TRUST_DOMAIN", default_value = DEFAULT_TRUST_DOMAIN)]
    pub(crate) trust_domain: String,
    /// Tokens for these audiences are accepted too, besides trefoil-ca.
    #[arg(
        long,
        env = "TREFOIL_TOKEN_AUDIENCE",
        value_delimiter = ',',
        value_name = "AUDIENCE"
    )]
    pub(crate) token_audience: Vec<String>,
    /// Accounts of other node proxies, NAMESPACE/NAME.
    #[arg(long, env = "TREFOIL_TRUSTED_NODE_ACCOUNT", value_delimiter = ',', value_parser = account, value_name = "NS/SA")]
    pub(crate) trusted_node_account: Vec<(String, String)>,
    /// The image of injected sidecars.
    #[arg(
        long,
        env = "TREFOIL_SIDECAR_IMAGE",
        default_value = "trefoil/sidecar:latest",
        value_name = "IMAGE"
    )]
    pub(crate) sidecar_image: String,
    /// The image of waypoints.
    #[arg(
        long,
        env = "TREFOIL_WAYPOINT_IMAGE",
        default_value = "trefoil/waypoint:latest",
        value_name = "IMAGE"
    )]
    pub(crate) waypoint_image: String,
    /// When the image of waypoints is pulled; unless given, the API server decides.
    #[arg(long, env = "TREFOIL_WAYPOINT_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(crate) waypoint_pull_policy: Option<String>,
    /// After this many seconds a graceful stop is over.
    #[arg(
        long,
        env = "TREFOIL_DRAIN_DEADLINE",
        default_value_t = 30,
        value_name = "SECONDS"
    )]
    pub(crate) drain_deadline: u64,
    /// What is logged.
    #[arg(long, env = "TREFOIL_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// How it is logged.
    #[arg(long, env = "TREFOIL_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What to ask.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// The socket of the running control plane.
    #[arg(
        long,
        env = "TREFOIL_ADMIN_SOCKET",
        default_value = "/run/trefoil/control-plane/admin.sock",
        value_name = "PATH"
    )]
    pub(crate) admin_socket: PathBuf,
    /// GET, PUT or POST.
    #[arg(long, default_value = "GET")]
    pub(crate) method: http::Method,
    /// config, workloads, connections, policies, certificates, status, log-level, drain, metrics or
    /// healthz/ready.
    #[arg(default_value = "status")]
    pub(crate) path: String,
    /// What to send.
    #[arg(default_value = "")]
    pub(crate) body: String,
}

fn account(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.into(), name.into()))
        }
        _ => Err("expected NAMESPACE/NAME".into()),
    }
}

impl Run {
    /// The audiences of accepted tokens.
    pub(crate) fn audiences(&self) -> Vec<String> {
        let mut all = vec![TOKEN_AUDIENCE.to_owned()];
        all.extend(self.token_audience.iter().cloned());
        all
    }

    /// The accounts of node proxies.
    pub(crate) fn node_accounts(&self) -> Vec<(String, String)> {
        let mut all = vec![("trefoil-system".to_owned(), "trefoil-node".to_owned())];
        all.extend(self.trusted_node_account.iter().cloned());
        all
    }
}
