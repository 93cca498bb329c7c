//! Asks the mesh's own processes what they hold, each through its admin socket: of the mesh on this machine
//! directly, of a cluster by running the process's own `admin` subcommand in its pod. It decides nothing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Api, AttachParams, ListParams};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use trefoil_api::names::{MANAGER, MESH_NAMESPACE, SIDECAR_CONTAINER, label};

use trefoil_local::ask;
use trefoil_local::mesh::{Mesh, Node};

/// How long a process may take to answer: one that is stopped never does.
/// A node proxy waits five seconds for its workers.
const PATIENCE: Duration = Duration::from_secs(7);

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Decides what everybody is told.
    ControlPlane,
    /// Redirects the pods of a node.
    Agent,
    /// The plane of a node's ambient pods.
    NodeProxy,
    /// The plane of one pod.
    Sidecar,
    /// Reads HTTP for what uses it.
    Waypoint,
}

/// A process that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    /// What it is.
    pub(crate) role: Role,
    /// Of which node; none of a control plane.
    pub(crate) node: Option<String>,
    /// The pod that it serves or is.
    pub(crate) of: String,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Socket(PathBuf),
    Exec {
        namespace: String,
        pod: String,
        container: String,
        binary: &'static str,
        socket: Option<String>,
    },
}

/// How the processes of a mesh are reached.
#[derive(Clone)]
pub(crate) struct Planes {
    client: Client,
    local: Option<Mesh>,
}

impl Role {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control plane",
            Self::Agent => "agent",
            Self::NodeProxy => "node proxy",
            Self::Sidecar => "sidecar",
            Self::Waypoint => "waypoint",
        }
    }

    /// Everything that its admin interface answers.
    pub(crate) fn questions(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["status", "config"],
            _ => &[
                "status",
                "config",
                "workloads",
                "policies",
                "connections",
                "certificates",
            ],
        }
    }

    fn binary(self) -> &'static str {
        match self {
            Self::ControlPlane => "trefoil-control-plane",
            Self::Agent => "trefoil-cni",
            Self::NodeProxy => "trefoil-node",
            Self::Sidecar => "trefoil-sidecar",
            Self::Waypoint => "trefoil-waypoint",
        }
    }
}

impl Planes {
    /// The processes of the mesh behind `client`, which is the one on this machine if `local` says so.
    pub(crate) fn new(client: Client, local: Option<Mesh>) -> Self {
        Self { client, local }
    }

    /// The mesh on this machine, if it is one.
    pub(crate) fn local(&self) -> Option<&Mesh> {
        self.local.as_ref()
    }

    /// The API server.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Every process of the mesh.
    pub(crate) async fn all(&self) -> anyhow::Result<Vec<Plane>> {
        let pods = Api::<Pod>::all(self.client.clone())
            .list(&ListParams::default())
            .await?
            .items;
        let mut planes: Vec<Plane> = pods
            .iter()
            .filter(|pod| runs(pod))
            .filter_map(|pod| self.of_pod(pod))
            .collect();
        if let Some(mesh) = &self.local {
            let way = Way::Socket(mesh.control_plane_admin());
            planes.push(Plane {
                role: Role::ControlPlane,
                node: None,
                of: "control-plane".into(),
                way,
            });
        }
        planes.sort_by(|a, b| (a.role, &a.node, &a.of).cmp(&(b.role, &b.node, &b.of)));
        Ok(planes)
    }

    /// The process of a role on a node.
    pub(crate) async fn on_node(&self, role: Role, node: &str) -> anyhow::Result<Plane> {
        let planes = self.all().await?;
        let found = planes
            .into_iter()
            .find(|plane| plane.role == role && plane.node.as_deref() == Some(node));
        found.with_context(|| format!("no {} runs on node {node}", role.name()))
    }

    /// The process that a pod is, or the sidecar in it.
    fn of_pod(&self, pod: &Pod) -> Option<Plane> {
        let (namespace, name) = (pod.namespace()?, pod.name_any());
        let node = pod.spec.as_ref()?.node_name.clone();
        if namespace != MESH_NAMESPACE {
            return self.own_proxy(pod, &namespace, &name, node);
        }
        let (role, folder) = match pod.labels().get("app")?.as_str() {
            "trefoil-control-plane" => (Role::ControlPlane, ""),
            "trefoil-cni" => (Role::Agent, "agent"),
            "trefoil-node" => (Role::NodeProxy, "node"),
            _ => return None,
        };
        let way = match &self.local {
            Some(mesh) => {
                let directory = mesh.node_directory(Node::parse(node.as_deref()?)?);
                Way::Socket(directory.join(folder).join("admin.sock"))
            }
            None => {
                let container = pod.spec.as_ref()?.containers.first()?;
                Way::Exec {
                    namespace,
                    pod: name.clone(),
                    container: container.name.clone(),
                    binary: role.binary(),
                    socket: admin_socket(container),
                }
            }
        };
        Some(Plane {
            role,
            node,
            of: name,
            way,
        })
    }

    /// The sidecar of a pod, or the waypoint that it is.
    fn own_proxy(&self, pod: &Pod, namespace: &str, name: &str, node: Option<String>) -> Option<Plane> {
        let (role, container) = match sidecar_of(pod) {
            Some(container) => (Role::Sidecar, container),
            None => (Role::Waypoint, waypoint_of(pod)?),
        };
        let way = match &self.local {
            Some(mesh) => Way::Socket(mesh.sidecar_admin(namespace, name)),
            None => Way::Exec {
                namespace: namespace.into(),
                pod: name.into(),
                container: container.name.clone(),
                binary: role.binary(),
                socket: admin_socket(container),
            },
        };
        Some(Plane {
            role,
            node,
            of: format!("{namespace}/{name}"),
            way,
        })
    }
}

/// The container of a waypoint's own pod, which runs under an account of the Gateway's name.
fn waypoint_of(pod: &Pod) -> Option<&Container> {
    let spec = pod.spec.as_ref()?;
    let gateway = pod.labels().get(label::GATEWAY_NAME)?;
    let ours = pod.labels().get(label::MANAGED_BY)? == MANAGER;
    let runs = spec.containers.first()?;
    (ours && spec.service_account_name.as_ref() == Some(gateway)).then_some(runs)
}

/// The sidecar that a pod was created with.
fn sidecar_of(pod: &Pod) -> Option<&Container> {
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.find(|container| container.name == SIDECAR_CONTAINER)
}

/// The admin socket that a container was told to use, unless its binary's own.
fn admin_socket(container: &Container) -> Option<String> {
    let arguments = container.args.iter().flatten();
    arguments
        .filter_map(|argument| argument.strip_prefix("--admin-socket="))
        .map(ToOwned::to_owned)
        .next()
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

impl Plane {
    /// One that is not there, for what only looks at who there is.
    #[cfg(test)]
    pub(crate) fn named(role: Role, of: &str) -> Self {
        Self {
            role,
            node: None,
            of: of.into(),
            way: Way::Socket(PathBuf::new()),
        }
    }

    /// What it answers to a question such as `status`.
    pub(crate) async fn ask(&self, planes: &Planes, question: &str) -> anyhow::Result<Value> {
        self.question(planes, "GET", question).await
    }

    /// What it answers to a question that may have a method, as what it is.
    pub(crate) async fn question<Answer: DeserializeOwned>(
        &self,
        planes: &Planes,
        method: &str,
        question: &str,
    ) -> anyhow::Result<Answer> {
        let answer = tokio::time::timeout(PATIENCE, self.answer(planes, method, question)).await;
        let body =
            answer.with_context(|| format!("the {} of {} does not answer", self.role.name(), self.of))??;
        let path = question.split('?').next().unwrap_or_default();
        serde_json::from_str(&body).with_context(|| {
            format!(
                "the {} of {} answered {path} with {body:?}",
                self.role.name(),
                self.of
            )
        })
    }

    async fn answer(&self, planes: &Planes, method: &str, question: &str) -> anyhow::Result<String> {
        match &self.way {
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream
                    .with_context(|| format!("the {} of {} does not answer", self.role.name(), self.of))?;
                let (status, body) = ask::ask(stream, method, &format!("/{question}")).await?;
                anyhow::ensure!(
                    status == 200,
                    "the {} of {} answered {status}: {}",
                    self.role.name(),
                    self.of,
                    problem(&body)
                );
                Ok(body)
            }
            Way::Exec {
                namespace,
                pod,
                container,
                binary,
                socket,
            } => {
                let binary = format!("/{binary}");
                let mut command = vec![binary.as_str(), "admin", question];
                if method != "GET" {
                    command.extend(["--method", method]);
                }
                if let Some(socket) = socket {
                    command.extend(["--admin-socket", socket]);
                }
                execute(planes.client(), namespace, pod, container, &command).await
            }
        }
    }
}

/// What an answer says is wrong, without what is around it.
fn problem(body: &str) -> String {
    let error = serde_json::from_str::<Value>(body).ok();
    let error = error.and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
    error.unwrap_or_else(|| body.trim().to_owned())
}

/// What a command in a pod's container writes.
pub(crate) async fn execute(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
) -> anyhow::Result<String> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let parameters = AttachParams::default()
        .container(container)
        .stdout(true)
        .stderr(true);
    let run = async {
        let mut attached = pods.exec(pod, command.to_vec(), &parameters).await?;
        let (mut output, mut errors) = (String::new(), String::new());
        let mut stdout = attached.stdout().context("no output")?;
        let mut stderr = attached.stderr().context("no errors")?;
        let status = attached.take_status().context("no status")?;
        tokio::try_join!(
            stdout.read_to_string(&mut output),
            stderr.read_to_string(&mut errors)
        )?;
        let status = status.await;
        attached.join().await?;
        let failed = status.is_some_and(|status| status.status.as_deref() == Some("Failure"));
        anyhow::ensure!(!failed, "{} {}", problem(&output), errors.trim());
        Ok(output)
    };
    run.await
        .with_context(|| format!("running {} in {namespace}/{pod}", command[0]))
}
