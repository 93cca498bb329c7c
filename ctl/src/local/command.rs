//! What `trefoilctl local` does for each of its subcommands but `run` and `exec`.

use std::fs;
use std::io;
use std::time::Instant;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use trefoil_api::names::label;
use trefoil_api::plane::{Labels, Mode};

use trefoil_local::mesh::Mesh;
use trefoil_local::protocol::{Conversation, LocalStatus, Request, Response};
use trefoil_local::up::{self, Options};
use trefoil_local::{api, objects};

use super::flags::{UpFlags, pod_name};
use crate::output::{Done, Format, Table, print_done};

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
    let options = Options {
        nodes: flags.nodes,
        certificate_lifetime: flags.certificate_lifetime,
        isolation: flags.isolation,
    };
    if flags.foreground {
        return up::serve(mesh, options).await;
    }
    let started = Instant::now();
    up::start(&mesh, &options).await?;
    let seconds = started.elapsed().as_secs_f32();
    let up = json!({
        "mesh": mesh.name, "nodes": options.nodes, "seconds": seconds, "kubeconfig": mesh.kubeconfig(),
    });
    format.print(&up, || {
        let (name, nodes, kubeconfig) = (&mesh.name, options.nodes, mesh.kubeconfig());
        format!(
            "mesh {name} is up: {nodes} nodes in {seconds:.1} s\nexport KUBECONFIG={}",
            kubeconfig.display()
        )
    })
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
        None => mesh.daemon_log(),
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
    let client = api::client(&mesh.kubeconfig()).await?;
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
