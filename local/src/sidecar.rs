//! The proxy that a pod has to itself, under its own user and without any capability: a sidecar, started before
//! the pod's program as a native sidecar is, or a waypoint, which is the pod's program.

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

/// A proxy that a pod has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// Beside the pod's program.
    Sidecar,
    /// The pod's program.
    Waypoint,
}

impl Proxy {
    /// Its program.
    pub(crate) fn binary(self) -> &'static str {
        match self {
            Self::Sidecar => "trefoil-sidecar",
            Self::Waypoint => "trefoil-waypoint",
        }
    }

    fn log(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar.log",
            Self::Waypoint => "log",
        }
    }
}

/// Starts a pod's sidecar, and waits until it is ready.
pub(crate) async fn start(daemon: &Daemon, pod: &MadePod) -> anyhow::Result<()> {
    start_process(daemon, pod, Proxy::Sidecar).await?;
    let directory = daemon.mesh.pod_directory(&pod.namespace, &pod.name);
    ready(pod).await.with_context(|| {
        let log = directory.join(Proxy::Sidecar.log());
        format!("the sidecar is not ready: see {}", log.display())
    })
}

/// Starts a pod's own proxy, and keeps it running.
pub(crate) async fn start_process(daemon: &Daemon, pod: &MadePod, proxy: Proxy) -> anyhow::Result<()> {
    let pod_directory = daemon.mesh.pod_directory(&pod.namespace, &pod.name);
    let directory = pod_directory.join("sidecar");
    let file = TokenFile {
        owner: pod.token_owner(),
        path: directory.join("token"),
        user: uid::SIDECAR,
        kind: TokenKind::ControlPlane,
    };
    daemon.keep_token(file).await?;
    let program = Program {
        name: format!("{} of {}/{}", proxy.binary(), pod.namespace, pod.name),
        enter: Enter {
            netns: pod.netns.clone(),
            binds: vec![(
                super::binary(proxy.binary())?.into(),
                daemon.mesh.program(proxy.binary()),
            )],
            privilege: Privilege::Nothing,
            user: Some((uid::SIDECAR, uid::SIDECAR)),
            dies_with_parent: true,
            ..Enter::default()
        },
        command: command(daemon, pod, proxy, &directory),
        log: pod_directory.join(proxy.log()),
    };
    let process = Supervised::start(program)?;
    daemon.hold_sidecar(pod, process);
    Ok(())
}

/// The folder is the proxy's own: what it remembers is there beside its token, as long as the pod.
fn command(daemon: &Daemon, pod: &MadePod, proxy: Proxy, directory: &Path) -> Vec<String> {
    let mesh = &daemon.mesh;
    let path = |path: &PathBuf| path.display().to_string();
    let mut command = vec![path(&mesh.program(proxy.binary())), "run".into()];
    let mut flags = vec![
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
    ];
    if proxy == Proxy::Waypoint {
        // A waypoint runs under the account of its Gateway, which has the same name.
        flags.push(("--gateway", pod.account.clone()));
    }
    for (flag, value) in flags {
        command.extend([flag.to_owned(), value]);
    }
    command
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

/// What a pod's proxy says of its readiness.
pub(crate) async fn probe(pod: &MadePod) -> anyhow::Result<(u16, String)> {
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
