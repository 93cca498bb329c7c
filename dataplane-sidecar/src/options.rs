//! What the user says. Typed; nothing is read or opened here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use trefoil_api::names::{DEFAULT_TRUST_DOMAIN, MESH_NAMESPACE, port};
use trefoil_dataplane_core::admin::Format;

#[cfg(test)]
mod tests;

/// The sidecar of one workload.
#[derive(Debug, Parser)]
#[command(name = "trefoil-sidecar", version, about)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the workload until told to end.
    Run(Box<Run>),
    /// Ask the admin interface of the running sidecar.
    Admin(Admin),
}

/// What a running sidecar needs to know.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Run {
    /// Name of our pod.
    #[arg(long, env = "TREFOIL_POD")]
    pub(crate) pod: String,
    /// Namespace of our pod.
    #[arg(long, env = "TREFOIL_NAMESPACE")]
    pub(crate) namespace: String,
    /// Service account of our pod.
    #[arg(long, env = "TREFOIL_SERVICE_ACCOUNT", default_value = "default")]
    pub(crate) service_account: String,
    /// Kubernetes uid of our pod.
    #[arg(long, env = "TREFOIL_POD_UID")]
    pub(crate) pod_uid: String,
    /// Our node.
    #[arg(long, env = "TREFOIL_NODE")]
    pub(crate) node: String,
    /// Where the control plane is.
    #[arg(long, env = "TREFOIL_CONTROL_PLANE", default_value_t = control_plane_url())]
    pub(crate) control_plane: String,
    /// The name in the control plane's certificate, whatever its address.
    #[arg(long, env = "TREFOIL_CONTROL_PLANE_NAME", default_value_t = control_plane_name())]
    pub(crate) control_plane_name: String,
    /// File of our bearer token.
    #[arg(long, env = "TREFOIL_TOKEN", default_value = "/var/run/secrets/trefoil/token")]
    pub(crate) token: PathBuf,
    /// File of the roots that vouch for the control plane.
    #[arg(
        long,
        env = "TREFOIL_ROOT_CERT",
        default_value = "/var/run/secrets/trefoil-ca/root-cert.pem"
    )]
    pub(crate) root_cert: PathBuf,
    /// Our trust domain.
    #[arg(long, env = "TREFOIL_TRUST_DOMAIN", default_value = DEFAULT_TRUST_DOMAIN)]
    pub(crate) trust_domain: String,
    /// Metrics.
    #[arg(long, env = "TREFOIL_METRICS_LISTEN", default_value = ":15020", value_parser = listen_address)]
    pub(crate) metrics_listen: SocketAddr,
    /// Readiness.
    #[arg(long, env = "TREFOIL_READINESS_LISTEN", default_value = ":15021", value_parser = listen_address)]
    pub(crate) readiness_listen: SocketAddr,
    /// The admin interface.
    #[arg(long, env = "TREFOIL_ADMIN_SOCKET", default_value = ADMIN_SOCKET)]
    pub(crate) admin_socket: PathBuf,
    /// Where the last configuration that was good is remembered, to serve with while the control plane is
    /// away. Without it nothing outlives the process.
    #[arg(long, env = "TREFOIL_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Seconds that connections have to end by themselves once we are told to.
    #[arg(long, env = "TREFOIL_DRAIN_DEADLINE", default_value_t = 30)]
    pub(crate) drain_deadline: u64,
    /// Seconds that a certificate is asked for.
    #[arg(long, env = "TREFOIL_CERTIFICATE_LIFETIME", default_value_t = 86_400)]
    pub(crate) certificate_lifetime: u32,
    /// Refuse connections to what the mesh does not know, whatever the mesh's settings say.
    #[arg(long, env = "TREFOIL_REGISTRY_ONLY")]
    pub(crate) registry_only: bool,
    /// Threads; enough for one workload by default.
    #[arg(long, env = "TREFOIL_WORKER_THREADS", default_value_t = 2)]
    pub(crate) worker_threads: usize,
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or `TARGET=LEVEL,…`.
    #[arg(long, env = "TREFOIL_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// `text` or `json`.
    #[arg(long, env = "TREFOIL_LOG_FORMAT", default_value = "text")]
    #[serde(skip)]
    pub(crate) log_format: Format,
}

/// A question to the admin interface.
#[derive(Clone, Debug, Args)]
pub(crate) struct Admin {
    /// Such as `status`, `workloads`, `connections`, `policies`, `certificates`, `config`, `log-level`.
    pub(crate) path: String,
    /// `GET`, `PUT` or `POST`.
    #[arg(long, default_value = "GET")]
    pub(crate) method: String,
    /// What is sent along.
    #[arg(long, default_value = "")]
    pub(crate) body: String,
    /// The admin interface.
    #[arg(long, env = "TREFOIL_ADMIN_SOCKET", default_value = ADMIN_SOCKET)]
    pub(crate) admin_socket: PathBuf,
}

const ADMIN_SOCKET: &str = "/run/trefoil/admin.sock";

impl Options {
    /// Threads of the runtime.
    pub(crate) fn worker_threads(&self) -> usize {
        match &self.command {
            Command::Run(run) => run.worker_threads.max(1),
            Command::Admin(_) => 1,
        }
    }
}

impl Run {
    /// How long connections have to end by themselves.
    pub(crate) fn drain_deadline(&self) -> Duration {
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
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let refused = |error: &dyn std::fmt::Display| format!("{text:?} is not ADDRESS:PORT or :PORT: {error}");
    match text.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().map_err(|error| refused(&error))?;
            Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
        }
        None => text.parse().map_err(|error| refused(&error)),
    }
}
