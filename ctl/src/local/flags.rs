//! The flags of `trefoilctl local`.

use clap::{Args, Subcommand};

use trefoil_local::protocol::{PodRequest, ServiceRequest};

#[cfg(test)]
mod tests;

/// The mesh on this machine: nodes and pods out of network namespaces.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Start a mesh.
    Up(UpFlags),
    /// End the mesh and remove every trace of it.
    Down,
    /// Run a program as a pod of the mesh.
    Run(Box<RunFlags>),
    /// Run a command inside a pod.
    Exec {
        /// NAMESPACE/POD.
        pod: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// What runs.
    Status,
    /// The demonstration, in a mesh of its own.
    Demo,
    /// End pods and remove them.
    Delete {
        /// NAMESPACE/POD.
        #[arg(required = true)]
        pods: Vec<String>,
    },
    /// What a pod, or a process of the mesh, has written.
    Logs {
        /// NAMESPACE/POD, or the name of a process as in `status`; without one, the daemon's.
        of: Option<String>,
        /// The sidecar's rather than the program's.
        #[arg(long)]
        sidecar: bool,
    },
    /// Create a namespace, or change its mode.
    Namespace {
        /// Its name.
        name: String,
        /// ambient, sidecar or none.
        #[arg(long, default_value = "none")]
        mode: String,
    },
    /// The last step of every program that is started in a namespace.
    #[command(hide = true)]
    Enter(EnterFlags),
}

/// How a mesh is started.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpFlags {
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub(crate) nodes: u8,
    /// Lifetime of workloads' certificates, such as `30s`.
    #[arg(long)]
    pub(crate) certificate_lifetime: Option<String>,
    /// Isolation of workloads on a node where their namespace does not say: shared or namespace.
    #[arg(long, value_parser = ["shared", "namespace"])]
    pub(crate) isolation: Option<String>,
    /// Leave the mesh running and return once it is up: the default.
    #[arg(long, conflicts_with = "foreground")]
    pub(crate) detach: bool,
    /// Stay in the foreground.
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Leave the terminal.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

/// How a pod is run.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunFlags {
    /// Its namespace.
    #[arg(long, short)]
    pub(crate) namespace: String,
    /// Create the namespace, in this mode, if it does not exist.
    #[arg(long, value_name = "MODE")]
    pub(crate) create_namespace: Option<String>,
    /// Its name.
    #[arg(long)]
    pub(crate) name: String,
    /// Its node, such as n1; else the one with the fewest pods.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Its service account.
    #[arg(long, default_value = "default")]
    pub(crate) service_account: String,
    /// Its labels, KEY=VALUE.
    #[arg(long, short, value_delimiter = ',', value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// Its annotations, KEY=VALUE.
    #[arg(long, value_parser = pair)]
    pub(crate) annotation: Vec<(String, String)>,
    /// A port that it listens on; it is ready once it does.
    #[arg(long, short)]
    pub(crate) port: Vec<u16>,
    /// A Service over the pods with label `app=NAME` (given to this one unless it has another).
    #[arg(long, value_name = "NAME:PORT[:TARGET]", value_parser = service)]
    pub(crate) service: Vec<ServiceRequest>,
    /// The headless service whose member it is, as of a StatefulSet.
    #[arg(long)]
    pub(crate) subdomain: Option<String>,
    /// Leave it running; its output goes to `trefoilctl local logs`.
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// The user that it runs as: UID[:GID].
    #[arg(long, value_parser = user)]
    pub(crate) user: Option<(u32, u32)>,
    /// The program.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// What a program becomes.
#[derive(Args, Clone, Debug)]
pub(crate) struct EnterFlags {
    /// JSON of `Enter`.
    #[arg(long)]
    pub(crate) spec: String,
    /// The program.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

impl RunFlags {
    /// What the daemon is asked.
    pub(crate) fn request(self) -> PodRequest {
        PodRequest {
            namespace: self.namespace,
            create_namespace: self.create_namespace,
            name: self.name,
            node: self.node,
            service_account: self.service_account,
            labels: self.labels.into_iter().collect(),
            annotations: self.annotation.into_iter().collect(),
            ports: self.port,
            services: self.service,
            subdomain: self.subdomain,
            command: self.command,
            user: self.user,
            detach: self.detach,
        }
    }
}

/// NAMESPACE/POD in its parts.
pub(crate) fn pod_name(text: &str) -> anyhow::Result<(String, String)> {
    let parts = text
        .split_once('/')
        .filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty());
    let (namespace, pod) = parts.ok_or_else(|| anyhow::anyhow!("{text:?}: expected NAMESPACE/POD"))?;
    Ok((namespace.to_owned(), pod.to_owned()))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

fn service(text: &str) -> Result<ServiceRequest, String> {
    let expected = || "expected NAME:PORT[:TARGET]".to_owned();
    let mut parts = text.split(':');
    let name = parts
        .next()
        .filter(|name| !name.is_empty())
        .ok_or_else(expected)?;
    let port = parts
        .next()
        .and_then(|port| port.parse().ok())
        .ok_or_else(expected)?;
    let target = parts
        .next()
        .map_or(Ok(port), |target| target.parse().map_err(|_| expected()))?;
    if parts.next().is_some() {
        return Err(expected());
    }
    Ok(ServiceRequest {
        name: name.into(),
        port,
        target,
    })
}

fn user(text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse().map_err(|_| "expected UID[:GID]".to_owned());
    Ok((number(user)?, number(group)?))
}
