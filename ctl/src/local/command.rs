//! What `trefoilctl local` does for each of its subcommands but `run` and `exec`.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use trefoil_api::names::label;
use trefoil_api::plane::{Labels, Mode};

use super::daemon::{self, Options};
use super::flags::{UpFlags, pod_name};
use super::mesh::Mesh;
use super::protocol::{Conversation, LocalStatus, Request, Response};
use super::{down, objects};
use crate::connect;
use crate::output::{Done, Format, Table, print_done};

/// How long a mesh may take to come up or go down.
const PATIENCE: Duration = Duration::from_secs(90);

/// `local up`.
pub(crate) async fn up(mesh: Mesh, flags: UpFlags, format: Format) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "`trefoilctl local` makes network namespaces: run it as root"
    );
    if let Ok(mut conversation) = Conversation::with_daemon(&mesh).await {
        conversation.ask(&Request::Status).await?;
        anyhow::bail!(
            "mesh {:?} is up already: `trefoilctl local down` ends it",
            mesh.name
        );
    }
    if flags.detached {
        // A session of its own: no signal of the terminal reaches it. It fails only for a leader of one.
        let _ = rustix::process::setsid();
    }
    if flags.foreground {
        let options = Options {
            nodes: flags.nodes,
            certificate_lifetime: flags.certificate_lifetime,
            isolation: flags.isolation,
        };
        return daemon::run(mesh, options).await;
    }
    let started = Instant::now();
    up_detached(&mesh, &flags).await?;
    let seconds = started.elapsed().as_secs_f32();
    let up = json!({
        "mesh": mesh.name, "nodes": flags.nodes, "seconds": seconds, "kubeconfig": mesh.kubeconfig(),
    });
    format.print(&up, || {
        let (name, nodes, kubeconfig) = (&mesh.name, flags.nodes, mesh.kubeconfig());
        format!(
            "mesh {name} is up: {nodes} nodes in {seconds:.1} s\nexport KUBECONFIG={}",
            kubeconfig.display()
        )
    })
}

/// Starts a daemon, and waits until it answers.
pub(crate) async fn up_detached(mesh: &Mesh, flags: &UpFlags) -> anyhow::Result<()> {
    let log = log_path(mesh);
    let file = fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "local",
        "--mesh",
        &mesh.name,
        "up",
        "--foreground",
        "--detached",
        "--nodes",
    ]);
    command.arg(flags.nodes.to_string());
    for (flag, value) in [
        ("--certificate-lifetime", &flags.certificate_lifetime),
        ("--isolation", &flags.isolation),
    ] {
        if let Some(value) = value {
            command.args([flag, value]);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0);
    let mut daemon = Starting(Some(command.spawn().context("starting the daemon")?));
    let answers = async {
        loop {
            if tokio::net::UnixStream::connect(mesh.socket()).await.is_ok() {
                daemon.0 = None;
                return anyhow::Ok(());
            }
            if let Some(child) = &mut daemon.0
                && child.try_wait()?.is_some()
            {
                let said = fs::read_to_string(&log).unwrap_or_default();
                anyhow::bail!("the mesh did not come up:\n{}", said.trim());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answers)
        .await
        .context("the mesh did not come up in time")?
}

/// A daemon that does not answer yet. Whoever gives up waiting for it, as one that is interrupted does, ends
/// it: one that has written no pid file yet would be found by nobody and go on.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.0 {
            // It may have ended in between.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The daemon's log: beside the mesh's state, which the daemon makes anew.
fn log_path(mesh: &Mesh) -> PathBuf {
    std::env::temp_dir().join(format!("trefoil-local-{}.log", mesh.name))
}

/// `local down`.
pub(crate) async fn down(mesh: &Mesh) -> anyhow::Result<bool> {
    let daemon = down::daemon(mesh);
    let asked = match Conversation::with_daemon(mesh).await {
        Ok(mut conversation) => conversation.ask(&Request::Stop).await.is_ok(),
        Err(_) => false,
    };
    if asked {
        let gone = async {
            // A pod that was being made as it ended may have come after it tidied up: that is removed below.
            while daemon.map_or_else(|| mesh.directory().exists(), down::runs) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // A daemon that hangs is ended by name below.
        let _ = tokio::time::timeout(Duration::from_secs(20), gone).await;
    }
    let left = down::remove(mesh).await?;
    let _ = fs::remove_file(log_path(mesh));
    Ok(asked || left)
}

/// `local status`.
pub(crate) async fn status(mesh: &Mesh, format: Format) -> anyhow::Result<()> {
    let answer = Conversation::with_daemon(mesh)
        .await?
        .ask(&Request::Status)
        .await?;
    let Response::Status(status) = answer else {
        anyhow::bail!("the daemon answered something else")
    };
    format.print(&status, || render(&status))
}

fn render(status: &LocalStatus) -> String {
    let mut processes = Table::new(&["PROCESS", "PID", "RESTARTS", "LAST EXIT"]);
    for process in &status.processes {
        processes.row([
            process.name.clone(),
            process.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            process.restarts.to_string(),
            process.last_exit.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    let mut pods = Table::new(&[
        "NAMESPACE",
        "POD",
        "NODE",
        "ADDRESSES",
        "SIDECAR",
        "PID",
        "COMMAND",
    ]);
    for pod in &status.pods {
        pods.row([
            pod.namespace.clone(),
            pod.name.clone(),
            pod.node.clone(),
            pod.addresses.join(" "),
            pod.sidecar
                .as_ref()
                .map_or_else(|| "-".into(), |sidecar| format!("{} restarts", sidecar.restarts)),
            pod.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            pod.command.join(" "),
        ]);
    }
    format!("{}\n{}", processes.render(), pods.render())
}

/// `local delete`.
pub(crate) async fn delete(mesh: &Mesh, pods: &[String], format: Format) -> anyhow::Result<()> {
    let mut conversation = Conversation::with_daemon(mesh).await?;
    let mut done = Vec::new();
    for name in pods {
        let (namespace, pod) = pod_name(name)?;
        if let Err(error) = conversation.ask(&Request::Delete { namespace, pod }).await {
            print_done(&done, format)?;
            return Err(error);
        }
        done.push(Done::new(format!("pod/{name}"), "deleted"));
    }
    print_done(&done, format)
}

/// `local logs`.
pub(crate) fn logs(mesh: &Mesh, of: Option<&str>, sidecar: bool) -> anyhow::Result<()> {
    let path = match of {
        None => log_path(mesh),
        Some(name) if name.contains('/') => {
            let (namespace, pod) = pod_name(name)?;
            mesh.pod_directory(&namespace, &pod)
                .join(if sidecar { "sidecar.log" } else { "log" })
        }
        Some(process) => mesh.log(process),
    };
    let mut file = fs::File::open(&path).with_context(|| format!("no log {}", path.display()))?;
    io::copy(&mut file, &mut io::stdout().lock())?;
    Ok(())
}

/// `local namespace`.
pub(crate) async fn namespace(mesh: &Mesh, name: &str, mode: &str, format: Format) -> anyhow::Result<()> {
    let labels = Labels::from([(label::DATAPLANE_MODE.to_owned(), mode.to_owned())]);
    Mode::of(Some(&labels))?;
    let client = connect::client(Some(&mesh.kubeconfig())).await?;
    let created = objects::create_namespace(&client, name, Some(mode)).await?;
    if !created {
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        Api::<Namespace>::all(client)
            .patch(name, &PatchParams::default(), &patch)
            .await?;
    }
    let done = if created { "created" } else { "configured" };
    print_done(&[Done::new(format!("namespace/{name}"), done)], format)
}
