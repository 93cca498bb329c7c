//! The sidecar process of a pod: started before its program, as a native sidecar is, under its own user and
//! without any capability.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use trefoil_api::names::{port, uid};

use super::daemon::{Daemon, TokenFile, TokenKind};
use super::enter::{Enter, Privilege};
use super::pod::MadePod;
use super::process::{Program, Supervised};
use super::{control_plane, network};
use crate::ask;

/// How long a sidecar may take to become ready.
const READY: Duration = Duration::from_secs(20);

/// Starts a pod's sidecar, and waits until it is ready.
pub(crate) async fn start(daemon: &Daemon, pod: &MadePod) -> anyhow::Result<()> {
    let directory = daemon
        .mesh
        .pod_directory(&pod.namespace, &pod.name)
        .join("sidecar");
    let file = TokenFile {
        owner: pod.token_owner(),
        path: directory.join("token"),
        user: uid::SIDECAR,
        kind: TokenKind::ControlPlane,
    };
    daemon.keep_token(file).await?;
    let program = Program {
        name: format!("sidecar of {}/{}", pod.namespace, pod.name),
        enter: Enter {
            netns: pod.netns.clone(),
            binds: vec![(
                super::binary("trefoil-sidecar")?.into(),
                daemon.mesh.sidecar_program(),
            )],
            privilege: Privilege::Nothing,
            user: Some((uid::SIDECAR, uid::SIDECAR)),
            dies_with_parent: true,
            ..Enter::default()
        },
        command: command(daemon, pod, &directory)?,
        log: daemon
            .mesh
            .pod_directory(&pod.namespace, &pod.name)
            .join("sidecar.log"),
    };
    let log = program.log.clone();
    let process = Supervised::start(program)?;
    daemon.hold_sidecar(pod, process);
    ready(pod)
        .await
        .with_context(|| format!("the sidecar is not ready: see {}", log.display()))
}

/// The folder is the sidecar's own: what it remembers is there beside its token, as long as the pod.
fn command(daemon: &Daemon, pod: &MadePod, directory: &Path) -> anyhow::Result<Vec<String>> {
    let mesh = &daemon.mesh;
    let path = |path: &PathBuf| path.display().to_string();
    let mut command = vec![path(&mesh.sidecar_program()), "run".into()];
    for (flag, value) in [
        ("--pod", pod.name.clone()),
        ("--namespace", pod.namespace.clone()),
        ("--service-account", pod.account.clone()),
        ("--pod-uid", pod.uid.clone()),
        ("--node", pod.node().name()),
        ("--control-plane", control_plane::url()),
        ("--token", path(&directory.join("token"))),
        ("--state-dir", path(&directory.join("state"))),
        ("--root-cert", path(&mesh.root_certificate())),
        (
            "--admin-socket",
            path(&mesh.sidecar_admin(&pod.namespace, &pod.name)),
        ),
        ("--drain-deadline", "3".into()),
    ] {
        command.extend([flag.to_owned(), value]);
    }
    Ok(command)
}

async fn ready(pod: &MadePod) -> anyhow::Result<()> {
    let mut last = String::from("it does not answer");
    let polled = async {
        loop {
            match probe(pod).await {
                Ok((200, _)) => return,
                Ok((_, body)) => last = format!("it waits for {}", body.trim()),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(READY, polled).await;
    in_time.map_err(|_| anyhow::anyhow!("{last}"))
}

async fn probe(pod: &MadePod) -> anyhow::Result<(u16, String)> {
    let stream = network::connect_in(&pod.netns, IpAddr::V4(Ipv4Addr::LOCALHOST), port::READINESS).await?;
    ask::get(stream, "/healthz/ready").await
}

/// Ends a pod's sidecar, if it has one.
pub(crate) async fn stop(daemon: &Daemon, pod: &MadePod) {
    if let Some(process) = daemon.take_sidecar(pod) {
        process.stop().await;
    }
    daemon.forget_tokens(&pod.uid);
}
