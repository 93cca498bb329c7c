//! What the user said, typed. No I/O, no defaults that depend on the machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trefoil_api::names;

/// The node proxy of a Trefoil mesh.
#[derive(Debug, Parser)]
#[command(name = "trefoil-node", version)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the pods of a node: the supervisor, which starts its workers.
    Run(Box<RunFlags>),
    /// A worker. Started by the supervisor only, with its channel as standard input.
    #[command(hide = true)]
    Worker(WorkerFlags),
    /// Asks a running node proxy over its admin socket.
    Admin(AdminFlags),
}

/// Flags of the supervisor.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// Name of this node.
    #[arg(long, env = "TREFOIL_NODE")]
    pub node: String,
    /// Name of this process's own pod, for people who read the control plane's status.
    #[arg(long, env = "TREFOIL_POD", default_value = "trefoil-node")]
    pub pod: String,
    /// The control plane, such as `https://trefoil-control-plane.trefoil-system.svc:15012`.
    #[arg(long, env = "TREFOIL_CONTROL_PLANE")]
    pub control_plane: String,
    /// The name that the control plane's certificate must have, whatever its address.
    #[arg(
        long,
        env = "TREFOIL_CONTROL_PLANE_NAME",
        default_value = "trefoil-control-plane.trefoil-system.svc"
    )]
    pub control_plane_name: String,
    /// File with this process's service account token; read anew for each connection.
    #[arg(long, env = "TREFOIL_TOKEN", default_value = "/var/run/secrets/trefoil/token")]
    pub token: PathBuf,
    /// File with the mesh's roots.
    #[arg(
        long,
        env = "TREFOIL_ROOT_CERT",
        default_value = "/var/run/secrets/trefoil-ca/root-cert.pem"
    )]
    pub root_cert: PathBuf,
    /// Folder with the agent's sockets, `pods.sock` and `descriptors.sock`.
    #[arg(long, env = "TREFOIL_RUN_DIR", default_value = "/run/trefoil")]
    pub run_dir: PathBuf,
    /// Folder for the last-known-good state. No keys are kept in it.
    #[arg(long, env = "TREFOIL_STATE_DIR", default_value = "/var/lib/trefoil/node")]
    pub state_dir: PathBuf,
    /// Where metrics are served.
    #[arg(long, env = "TREFOIL_METRICS_LISTEN", default_value_t = any(names::port::METRICS))]
    pub metrics_listen: SocketAddr,
    /// Where readiness is served.
    #[arg(long, env = "TREFOIL_READINESS_LISTEN", default_value_t = any(names::port::READINESS))]
    pub readiness_listen: SocketAddr,
    /// The admin socket.
    #[arg(long, env = "TREFOIL_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
    /// Which worker serves the pods of namespaces that do not say.
    #[arg(long, env = "TREFOIL_ISOLATION", value_enum, default_value_t = IsolationFlag::Shared)]
    pub isolation: IsolationFlag,
    /// Trust domain of pods that the control plane has not described yet.
    #[arg(long, env = "TREFOIL_TRUST_DOMAIN", default_value = names::DEFAULT_TRUST_DOMAIN)]
    pub trust_domain: String,
    /// Threads of each worker.
    #[arg(long, env = "TREFOIL_WORKER_THREADS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub worker_threads: u16,
    /// Seconds that established connections have when the process is told to end.
    #[arg(long, env = "TREFOIL_DRAIN_DEADLINE", default_value_t = 30)]
    pub drain_deadline: u64,
    /// What is logged.
    #[command(flatten)]
    pub log: LogFlags,
}

/// Flags of a worker: what it cannot learn over its channel.
#[derive(Clone, Debug, Args)]
pub struct WorkerFlags {
    /// The user id that it takes.
    #[arg(long)]
    pub user: u32,
    /// Whose pods it serves.
    #[arg(long)]
    pub scope: String,
    /// Threads.
    #[arg(long)]
    pub threads: u16,
    /// What is logged.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What is logged, and how.
#[derive(Clone, Debug, Args)]
pub struct LogFlags {
    /// Such as `info` or `info,trefoil_node=debug`.
    #[arg(long, env = "TREFOIL_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How a line looks.
    #[arg(long, env = "TREFOIL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl LogFormat {
    /// As it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Which worker serves a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IsolationFlag {
    /// One worker for all.
    Shared,
    /// One worker for each namespace.
    Namespace,
    /// One worker for each pod.
    Workload,
}

/// Where the admin socket is unless said otherwise.
const DEFAULT_ADMIN_SOCKET: &str = "/run/trefoil/node/admin.sock";

/// Flags of the admin client.
#[derive(Debug, Args)]
pub struct AdminFlags {
    /// The admin socket.
    #[arg(long, env = "TREFOIL_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
    /// `GET`, `PUT` or `POST`; else what the question is usually asked with.
    #[arg(long)]
    pub method: Option<String>,
    /// `config`, `workloads`, `connections`, `policies`, `certificates`, `status`, `log-level` or `drain`.
    pub question: String,
    /// New value, for `log-level`.
    pub value: Option<String>,
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}
