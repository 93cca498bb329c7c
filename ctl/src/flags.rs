//! The flags of `trefoilctl`.

use std::path::PathBuf;

use clap::Parser;
use trefoil_demo_programs::App;

use crate::local::LocalCommand;
use crate::object::Which;
use crate::output::Format;
use crate::waypoint::WaypointCommand;

/// Looks at a mesh, changes it, and makes one on this machine.
#[derive(Debug, Parser)]
#[command(name = "trefoilctl", version, about, disable_help_subcommand = true)]
pub(crate) struct Flags {
    /// The cluster; else the environment's, else the local mesh's.
    #[arg(long, global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, short, global = true, default_value = "text")]
    pub(crate) output: Format,
    /// The mesh on this machine that is meant where there is no other cluster.
    #[arg(long, global = true, default_value = "trefoil", env = "TREFOIL_MESH")]
    pub(crate) mesh: String,
    /// What is logged to standard error.
    #[arg(
        long,
        global = true,
        default_value = "warn,kube_client=off",
        env = "TREFOIL_LOG_LEVEL"
    )]
    pub(crate) log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Subcommand,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// The planes, what they serve, and what is unhealthy.
    Status,
    /// What each plane has acknowledged of what the control plane serves, and since when it lacks the rest.
    ///
    /// Exit code 1 where a replica does not answer, or a plane is away, has refused something or is behind.
    ProxyStatus {
        /// Of one plane, kind by kind: NAMESPACE/POD of a node proxy, a waypoint or a pod with a sidecar.
        proxy: Option<String>,
    },
    /// What the mesh holds about a pod: its plane, its workload, certificates, policies, connections.
    Config {
        /// NAMESPACE/POD.
        pod: String,
    },
    /// Whether CLIENT reaches SERVER, and if not, which one layer is at fault.
    Why {
        /// NAMESPACE/POD.
        client: String,
        /// NAMESPACE/POD or NAMESPACE/SERVICE, with :PORT or its first. Where both are there, pod/NAMESPACE/NAME or
        /// svc/NAMESPACE/NAME says which (and svc/NAME, in the client's namespace).
        server: String,
    },
    /// Everything that is not as it should be, each with its remedy.
    ///
    /// Exit code 1 where something is found.
    Check {
        /// Before an installation: whether the cluster can take the mesh, and what cannot be known from here. Where
        /// there is no cluster, whether this machine can (`trefoilctl local up`).
        #[arg(long)]
        pre: bool,
    },
    /// Show objects.
    Get(Which),
    /// Make objects as files say, and remove what they no longer say.
    Apply {
        /// A file of YAML or JSON, or - for standard input.
        #[arg(long, short, required = true)]
        file: Vec<PathBuf>,
        /// The namespace of objects that name none.
        #[arg(long, short)]
        namespace: Option<String>,
    },
    /// Delete objects.
    Delete(Which),
    /// Set or remove labels.
    Label {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// KEY=VALUE, or KEY- to remove.
        #[arg(required = true)]
        labels: Vec<String>,
        /// Its namespace.
        #[arg(long, short)]
        namespace: Option<String>,
        /// Labels are always overwritten; accepted for those used to it.
        #[arg(long)]
        overwrite: bool,
    },
    /// Waypoints: proxies that read HTTP for the services of a namespace.
    Waypoint {
        /// What to do.
        #[command(subcommand)]
        command: WaypointCommand,
    },
    /// An archive for maintainers: objects, events, logs, what every process says, and no secrets.
    Bugreport(crate::bugreport::Options),
    /// After the mesh was removed: what it has left, and the command that removes each.
    ///
    /// Exit code 1 where something would hinder pods.
    Uninstall {
        /// Only look. Nothing is removed by this program: `helm uninstall` does that.
        #[arg(long, required = true)]
        check: bool,
    },
    /// One mesh on this machine, shown: paths, identities, a live policy, a live switch, a waypoint. As root.
    Demo,
    /// The programs that the demonstration runs in its pods.
    #[command(hide = true)]
    DemoApp {
        /// Which.
        #[command(subcommand)]
        app: App,
    },
    /// Completions for a shell.
    Completion {
        /// Which.
        shell: clap_complete::Shell,
    },
    /// The mesh on this machine.
    Local {
        /// What to do.
        #[command(subcommand)]
        command: LocalCommand,
    },
}
