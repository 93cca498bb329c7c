//! The fixture: a mesh of its own on this machine, made and used through `trefoilctl local` as a user would.
//! The only file that knows its command line. Removes what it made, also when a suite breaks off.

mod counted;
mod forged;
pub mod names;
pub mod processes;
pub mod standard;
mod token;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How long a command of the fixture may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A mesh on this machine.
#[derive(Debug)]
pub struct Mesh {
    name: String,
    binaries: PathBuf,
}

/// A pod that is to run.
#[derive(Clone, Debug, Default)]
pub struct PodPlan {
    /// Its namespace.
    pub namespace: String,
    /// The mode that the namespace is created in, unless it is its name.
    pub mode: Option<String>,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its service account.
    pub account: String,
    /// Labels, `KEY=VALUE`.
    pub labels: Vec<String>,
    /// Ports that it listens on.
    pub ports: Vec<u16>,
    /// Services made for it, `NAME:PORT:TARGET`.
    pub services: Vec<String>,
    /// The headless service that it is part of.
    pub subdomain: Option<String>,
    /// The user that it runs as, `UID:GID`.
    pub user: Option<String>,
}

/// A pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Process id of its sidecar, if it has one; of a waypoint, its own.
    pub sidecar: Option<u32>,
}

impl Pod {
    /// One of its ports over IPv4.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[0], port)
    }

    /// One of its ports, over IPv6 where asked.
    #[must_use]
    pub fn over(&self, v6: bool, port: u16) -> SocketAddr {
        let address = self.addresses.iter().find(|address| address.is_ipv6() == v6);
        SocketAddr::new(*address.unwrap_or(&self.addresses[0]), port)
    }
}

#[derive(Deserialize)]
struct LocalStatus {
    processes: Vec<Process>,
    pods: Vec<PodStatus>,
}

/// A process of the mesh.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// Its process id, if it runs.
    #[serde(default)]
    pub pid: Option<u32>,
}

#[derive(Deserialize)]
struct PodStatus {
    namespace: String,
    name: String,
    node: String,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    sidecar: Option<Process>,
}

impl Mesh {
    /// Starts a mesh of two nodes. One of the same name that an interrupted run left is removed first.
    pub async fn up(name: &str, flags: &[&str]) -> anyhow::Result<Self> {
        Self::up_from(name, flags, binaries()?).await
    }

    /// The same, with the mesh's programs from another folder.
    pub async fn up_from(name: &str, flags: &[&str], binaries: PathBuf) -> anyhow::Result<Self> {
        let mesh = Self {
            name: name.into(),
            binaries,
        };
        mesh.local(&["down"]).await.ok();
        mesh.local(&[&["up"], flags].concat())
            .await
            .context("starting the mesh")?;
        Ok(mesh)
    }

    /// A mesh that is made and named by what is tested. Removed as any other, should that have failed to.
    pub fn of_another(name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.into(),
            binaries: binaries()?,
        })
    }

    /// The folder of the mesh's programs.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Removes everything that a mesh of this name consists of.
    pub async fn clean(name: &str) -> anyhow::Result<()> {
        let mesh = std::mem::ManuallyDrop::new(Self::of_another(name)?);
        mesh.local(&["down"]).await.map(drop)
    }

    /// The program that this is, for running its parts inside pods.
    pub fn program(&self) -> anyhow::Result<String> {
        let program = std::env::current_exe()?;
        Ok(program.to_str().context("the program's path")?.to_owned())
    }

    /// `trefoilctl` with arguments; its output.
    pub async fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.ctl_fed(arguments, None).await
    }

    /// `trefoilctl local` with arguments; its output.
    pub async fn local(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let local = ["local", "--mesh", &self.name];
        self.ctl_fed(&[&local, arguments].concat(), None).await
    }

    /// What `trefoilctl` prints, whatever its exit code.
    pub async fn said(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = tokio::time::timeout(LIMIT, self.command(arguments).stdin(Stdio::null()).output());
        let output = output.await.context("trefoilctl took too long")??;
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn ctl_fed(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let mut command = self.command(arguments);
        command.stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let mut child = command.spawn().context("starting trefoilctl")?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .with_context(|| format!("trefoilctl {} took too long", arguments.join(" ")))??;
        succeeded(&output).with_context(|| format!("trefoilctl {}", arguments.join(" ")))
    }

    fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(self.binaries.join("trefoilctl"));
        command
            .env("TREFOIL_MESH", &self.name)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Makes pods with these commands, and waits until they run.
    pub async fn run(&self, plan: &PodPlan, command: &[&str]) -> anyhow::Result<Pod> {
        let ports: Vec<String> = plan.ports.iter().map(u16::to_string).collect();
        let mut arguments = vec!["run", "--detach", "--namespace", &plan.namespace];
        arguments.extend([
            "--create-namespace",
            plan.mode.as_ref().unwrap_or(&plan.namespace),
            "--name",
            &plan.name,
        ]);
        arguments.extend(["--node", &plan.node, "--service-account", &plan.account]);
        for label in &plan.labels {
            arguments.extend(["--labels", label]);
        }
        for port in &ports {
            arguments.extend(["--port", port]);
        }
        for service in &plan.services {
            arguments.extend(["--service", service]);
        }
        if let Some(subdomain) = &plan.subdomain {
            arguments.extend(["--subdomain", subdomain]);
        }
        if let Some(user) = &plan.user {
            arguments.extend(["--user", user]);
        }
        arguments.push("--");
        arguments.extend(command);
        self.local(&arguments).await?;
        self.pod(&plan.namespace, &plan.name).await
    }

    /// A pod as it is now.
    pub async fn pod(&self, namespace: &str, name: &str) -> anyhow::Result<Pod> {
        let pods = self.pods(namespace).await?;
        let pod = pods.into_iter().find(|pod| pod.name == name);
        let pod = pod.with_context(|| format!("no pod {namespace}/{name}"))?;
        ensure!(!pod.addresses.is_empty(), "pod {namespace}/{name} has no address");
        Ok(pod)
    }

    /// The pods of a namespace as they are now.
    pub async fn pods(&self, namespace: &str) -> anyhow::Result<Vec<Pod>> {
        let pods = self.status().await?.pods.into_iter();
        let pods = pods.filter(|pod| pod.namespace == namespace).map(|pod| {
            let mut addresses = pod.addresses;
            addresses.sort();
            Pod {
                namespace: pod.namespace,
                name: pod.name,
                node: pod.node,
                addresses,
                sidecar: pod.sidecar.and_then(|process| process.pid),
            }
        });
        Ok(pods.collect())
    }

    /// The mesh's own processes.
    pub async fn processes(&self) -> anyhow::Result<Vec<Process>> {
        Ok(self.status().await?.processes)
    }

    async fn status(&self) -> anyhow::Result<LocalStatus> {
        let status = self.local(&["status", "-o", "json"]).await?;
        serde_json::from_str(&status).context("reading `trefoilctl local status -o json`")
    }

    /// Starts a program in a pod, in the foreground of a child process.
    pub fn start(&self, pod: &Pod, command: &[&str]) -> anyhow::Result<Child> {
        let target = format!("{}/{}", pod.namespace, pod.name);
        let local = ["local", "--mesh", &self.name, "exec", &target, "--"];
        let arguments = [&local, command].concat();
        self.command(&arguments)
            .stdin(Stdio::null())
            .spawn()
            .context("starting trefoilctl local exec")
    }

    /// Runs a program in a pod to its end; its output.
    pub async fn exec(&self, pod: &Pod, command: &[&str]) -> anyhow::Result<String> {
        self.exec_within(pod, command, LIMIT).await
    }

    /// Runs a program in a pod, which may take this long.
    pub async fn exec_within(&self, pod: &Pod, command: &[&str], limit: Duration) -> anyhow::Result<String> {
        let child = self.start(pod, command)?;
        let output = tokio::time::timeout(limit, child.wait_with_output()).await;
        let output = output.with_context(|| format!("{} took too long", command.join(" ")))??;
        succeeded(&output)
            .with_context(|| format!("in {}/{}: {}", pod.namespace, pod.name, command.join(" ")))
    }

    /// Runs a part of this program in a pod and reads the JSON that it prints.
    pub async fn program_in<Printed: DeserializeOwned>(
        &self,
        pod: &Pod,
        arguments: &[&str],
    ) -> anyhow::Result<Printed> {
        let program = self.program()?;
        let output = self.exec(pod, &[&[program.as_str()], arguments].concat()).await?;
        serde_json::from_str(&output).with_context(|| format!("reading what was printed: {output:?}"))
    }

    /// Runs a part of this program in a named network namespace and reads the JSON that it prints.
    pub async fn program_at<Printed: DeserializeOwned>(
        &self,
        netns: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Printed> {
        let output = Command::new("ip")
            .args(["netns", "exec", netns])
            .arg(self.program()?)
            .args(arguments)
            .output();
        let output = tokio::time::timeout(LIMIT, output)
            .await
            .context("took too long")??;
        let output = succeeded(&output)?;
        serde_json::from_str(&output).with_context(|| format!("reading what was printed: {output:?}"))
    }

    /// Applies objects.
    pub async fn apply(&self, objects: &str) -> anyhow::Result<()> {
        self.ctl_fed(&["apply", "-f", "-"], Some(objects)).await.map(drop)
    }

    /// Deletes an object.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.ctl(&["delete", kind, name, "-n", namespace]).await.map(drop)
    }

    /// Sets the mode of a namespace.
    pub async fn label_namespace(&self, namespace: &str, mode: &str) -> anyhow::Result<()> {
        self.local(&["namespace", namespace, "--mode", mode])
            .await
            .map(drop)
    }

    /// Ends a pod.
    pub async fn end(&self, pod: &Pod) -> anyhow::Result<()> {
        let name = format!("{}/{}", pod.namespace, pod.name);
        self.local(&["delete", &name]).await.map(drop)
    }

    /// The annotations of a pod.
    pub async fn annotations(&self, pod: &Pod) -> anyhow::Result<BTreeMap<String, String>> {
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(self.client().await?, &pod.namespace);
        Ok(pods
            .get(&pod.name)
            .await?
            .metadata
            .annotations
            .unwrap_or_default())
    }

    /// What the agent says redirects a pod.
    pub async fn redirection(&self, pod: &Pod) -> anyhow::Result<String> {
        let mut annotations = self.annotations(pod).await?;
        Ok(annotations
            .remove(trefoil_api::names::annotation::REDIRECTION)
            .unwrap_or_default())
    }

    /// A client of the embedded API.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Ends the mesh.
    pub async fn down(self) -> anyhow::Result<()> {
        self.local(&["down"]).await.map(drop)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.scratch().and_then(std::fs::remove_dir_all);
        // A suite that breaks off must not leave a mesh behind; `down` twice is harmless.
        let _ = std::process::Command::new(self.binaries.join("trefoilctl"))
            .args(["local", "--mesh", &self.name, "down"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Asks again until it holds, for at most this long; the last reason otherwise.
pub async fn eventually<Held, Asked>(limit: Duration, mut ask: impl FnMut() -> Asked) -> anyhow::Result<Held>
where
    Asked: Future<Output = anyhow::Result<Held>>,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(held) => return Ok(held),
            Err(error) if begun.elapsed() > limit => {
                return Err(error.context(format!("still not so after {} s", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn binaries() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program
        .parent()
        .map(Path::to_owned)
        .context("the program's folder")?;
    ensure!(
        folder.join("trefoilctl").exists(),
        "no trefoilctl beside {}: build the workspace",
        program.display()
    );
    Ok(folder)
}

fn succeeded(output: &Output) -> anyhow::Result<String> {
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", output.status, told.trim());
    }
    Ok(String::from_utf8(output.stdout.clone())?)
}
