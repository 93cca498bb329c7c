//! What the user says to a plane of one workload, whichever it is. Typed; nothing is read or opened here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use trefoil_api::names::{DEFAULT_TRUST_DOMAIN, MESH_NAMESPACE, port};

use crate::admin::Format;

/// What a running plane needs to know.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Name of our pod.
    #[arg(long, env = "TREFOIL_POD")]
    pub pod: String,
    /// Namespace of our pod.
    #[arg(long, env = "TREFOIL_NAMESPACE")]
    pub namespace: String,
    /// Service account of our pod.
    #[arg(long, env = "TREFOIL_SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,
    /// Kubernetes uid of our pod.
    #[arg(long, env = "TREFOIL_POD_UID")]
    pub pod_uid: String,
    /// Our node.
    #[arg(long, env = "TREFOIL_NODE")]
    pub node: String,
    /// Where the control plane is.
    #[arg(long, env = "TREFOIL_CONTROL_PLANE", default_value_t = control_plane_url())]
    pub control_plane: String,
    /// The name in the control plane's certificate, whatever its address.
    #[arg(long, env = "TREFOIL_CONTROL_PLANE_NAME", default_value_t = control_plane_name())]
    pub control_plane_name: String,
    /// File of our bearer token.
    #[arg(long, env = "TREFOIL_TOKEN", default_value = "/var/run/secrets/trefoil/token")]
    pub token: PathBuf,
    /// File of the roots that vouch for the control plane.
    #[arg(
        long,
        env = "TREFOIL_ROOT_CERT",
        default_value = "/var/run/secrets/trefoil-ca/root-cert.pem"
    )]
    pub root_cert: PathBuf,
    /// Our trust domain.
    #[arg(long, env = "TREFOIL_TRUST_DOMAIN", default_value = DEFAULT_TRUST_DOMAIN)]
    pub trust_domain: String,
    /// Metrics.
    #[arg(long, env = "TREFOIL_METRICS_LISTEN", default_value = ":15020", value_parser = listen_address)]
    pub metrics_listen: SocketAddr,
    /// Readiness.
    #[arg(long, env = "TREFOIL_READINESS_LISTEN", default_value = ":15021", value_parser = listen_address)]
    pub readiness_listen: SocketAddr,
    /// The admin interface.
    #[arg(long, env = "TREFOIL_ADMIN_SOCKET", default_value = ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
    /// Where the last configuration that was good is remembered, to serve with while the control plane is
    /// away. Without it nothing outlives the process.
    #[arg(long, env = "TREFOIL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Seconds that connections have to end by themselves once we are told to.
    #[arg(long, env = "TREFOIL_DRAIN_DEADLINE", default_value_t = 30)]
    pub drain_deadline: u64,
    /// Seconds that a certificate is asked for.
    #[arg(long, env = "TREFOIL_CERTIFICATE_LIFETIME", default_value_t = 86_400)]
    pub certificate_lifetime: u32,
    /// Threads; enough for one workload by default.
    #[arg(long, env = "TREFOIL_WORKER_THREADS", default_value_t = 2)]
    pub worker_threads: usize,
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or `TARGET=LEVEL,…`.
    #[arg(long, env = "TREFOIL_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// `text` or `json`.
    #[arg(long, env = "TREFOIL_LOG_FORMAT", default_value = "text")]
    #[serde(skip)]
    pub log_format: Format,
}

/// A question to the admin interface.
#[derive(Clone, Debug, Args)]
pub struct Question {
    /// Such as `status`, `workloads`, `connections`, `policies`, `certificates`, `config`, `log-level`.
    pub path: String,
    /// `GET`, `PUT` or `POST`.
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// What is sent along.
    #[arg(long, default_value = "")]
    pub body: String,
    /// The admin interface.
    #[arg(long, env = "TREFOIL_ADMIN_SOCKET", default_value = ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
}

const ADMIN_SOCKET: &str = "/run/trefoil/admin.sock";

impl Options {
    /// How long connections have to end by themselves.
    #[must_use]
    pub fn drain_deadline(&self) -> Duration {
        Duration::from_secs(self.drain_deadline)
    }
}

fn control_plane_name() -> String {
    format!("trefoil-control-plane.{MESH_NAMESPACE}.svc")
}

fn control_plane_url() -> String {
    format!("https://{}:{}", control_plane_name(), port::CONTROL_PLANE)
}

/// `ADDRESS:PORT`, or `:PORT` for every address of both families.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let refused = |error: &dyn std::fmt::Display| format!("{text:?} is not ADDRESS:PORT or :PORT: {error}");
    match text.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().map_err(|error| refused(&error))?;
            Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
        }
        None => text.parse().map_err(|error| refused(&error)),
    }
}
