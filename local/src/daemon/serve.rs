//! Answers what is asked over the control socket, and follows each pod until it is gone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::{Daemon, PodEntry};
use crate::executable;
use crate::listening;
use crate::pod::{self, MadePod};
use crate::process::{self, Program};
use crate::protocol::{Conversation, PodRequest, Request, Response};

/// How long a program may take to listen on the ports that it names.
const LISTENS: Duration = Duration::from_secs(30);
/// How long services may take to follow.
const IN_FORCE: Duration = Duration::from_secs(2);

/// Answers until asked to stop.
pub(super) async fn run(daemon: Arc<Daemon>, listener: UnixListener) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(converse(daemon.clone(), stream))),
                // Out of descriptors, most likely: others must end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            () = daemon.stop.cancelled() => return,
        }
    }
}

async fn converse(daemon: Arc<Daemon>, stream: UnixStream) {
    let mut conversation = Conversation::over(stream);
    while let Ok(Some(request)) = conversation.receive::<Request>().await {
        let answered = answer(&daemon, &mut conversation, request).await;
        let response = answered.unwrap_or_else(|error| Response::Failed {
            reason: crate::causes::causes(&error),
        });
        if conversation.send(&response).await.is_err() {
            return;
        }
    }
}

async fn answer(
    daemon: &Arc<Daemon>,
    conversation: &mut Conversation,
    request: Request,
) -> anyhow::Result<Response> {
    match request {
        Request::Status => Ok(Response::Status(daemon.status())),
        Request::Stop => {
            daemon.stop.cancel();
            Ok(Response::Done)
        }
        Request::Run(request) => run_pod(daemon, conversation, *request).await,
        Request::Enter { namespace, pod } => {
            let entry = running(daemon, &namespace, &pod)?;
            Ok(Response::Enter {
                enter: pod::enter(daemon, &entry.pod),
            })
        }
        Request::Delete { namespace, pod } => {
            let Some(entry) = daemon.pod(&namespace, &pod) else {
                let ended = pod::remove_ended(daemon, &namespace, &pod).await?;
                anyhow::ensure!(
                    ended,
                    "there is no pod {namespace}/{pod}: see `trefoilctl get pods -A`"
                );
                return Ok(Response::Done);
            };
            entry.stop.cancel();
            entry.gone.cancelled().await;
            pod::remove_object(daemon, &entry.pod).await;
            Ok(Response::Done)
        }
        Request::Started { .. } | Request::Exited { .. } => {
            anyhow::bail!("no pod was made over this connection")
        }
    }
}

fn running(daemon: &Daemon, namespace: &str, pod: &str) -> anyhow::Result<PodEntry> {
    daemon
        .pod(namespace, pod)
        .ok_or_else(|| anyhow::anyhow!("no pod {namespace}/{pod} runs here: see `trefoilctl local status`"))
}

async fn run_pod(
    daemon: &Arc<Daemon>,
    conversation: &mut Conversation,
    request: PodRequest,
) -> anyhow::Result<Response> {
    anyhow::ensure!(
        daemon.pod(&request.namespace, &request.name).is_none(),
        "pod {0}/{1} runs already: end it with `trefoilctl local delete {0}/{1}`",
        request.namespace,
        request.name
    );
    if request.detach {
        executable::find(&request.command[0])?;
    }
    let sidecar = pod::admit(daemon, &request).await?;
    let made = pod::make(daemon, &request, sidecar).await?;
    let entry = PodEntry {
        pod: made.clone(),
        pid: None,
        command: request.command.clone(),
        stop: CancellationToken::new(),
        gone: CancellationToken::new(),
    };
    daemon.hold_pod(entry.clone());
    if !request.detach {
        let code = attended(daemon, conversation, &entry, &request).await;
        finish(daemon, &entry, code).await;
        return Ok(Response::Done);
    }
    let child = match start(daemon, &made, &request) {
        Ok(child) => child,
        Err(error) => {
            finish(daemon, &entry, 127).await;
            return Err(error);
        }
    };
    daemon.set_pid(&made, child.id().unwrap_or_default());
    let (own, held) = (daemon.clone(), entry.clone());
    let follower = tokio::spawn(async move { follow(&own, &held, child).await });
    became_ready(daemon, &entry, &request, follower.is_finished()).await?;
    Ok(Response::Done)
}

fn start(daemon: &Daemon, made: &MadePod, request: &PodRequest) -> anyhow::Result<Child> {
    let program = Program {
        name: format!("{}/{}", made.namespace, made.name),
        enter: pod::enter(daemon, made),
        command: request.command.clone(),
        log: daemon.mesh.pod_directory(&made.namespace, &made.name).join("log"),
    };
    program.start()
}

/// Waits until a program of the daemon's own has ended, or is to end.
async fn follow(daemon: &Daemon, entry: &PodEntry, mut child: Child) {
    let code = tokio::select! {
        ended = child.wait() => ended.ok().and_then(|exit| exit.code()).unwrap_or(137),
        () = entry.stop.cancelled() => {
            process::end(&mut child).await;
            143
        }
    };
    finish(daemon, entry, code).await;
}

/// The exit code of a program that who asked runs: the end of the conversation is the end of the program.
async fn attended(
    daemon: &Arc<Daemon>,
    conversation: &mut Conversation,
    entry: &PodEntry,
    request: &PodRequest,
) -> i32 {
    let enter = Response::Enter {
        enter: pod::enter(daemon, &entry.pod),
    };
    if conversation.send(&enter).await.is_err() {
        return 137;
    }
    loop {
        let message = tokio::select! {
            message = conversation.receive::<Request>() => message,
            () = entry.stop.cancelled() => return 143,
        };
        match message {
            Ok(Some(Request::Started { pid })) => {
                daemon.set_pid(&entry.pod, pid);
                let (daemon, entry, request) = (daemon.clone(), entry.clone(), request.clone());
                tokio::spawn(async move {
                    if let Err(error) = became_ready(&daemon, &entry, &request, false).await {
                        tracing::warn!("pod {}/{}: {error:#}", entry.pod.namespace, entry.pod.name);
                    }
                });
            }
            Ok(Some(Request::Exited { code })) => return code,
            _ => return 137,
        }
    }
}

/// Marks a pod running, and ready once it listens where it says it does.
async fn became_ready(
    daemon: &Daemon,
    entry: &PodEntry,
    request: &PodRequest,
    ended: bool,
) -> anyhow::Result<()> {
    if ended {
        return Ok(());
    }
    let made = &entry.pod;
    if !request.ports.is_empty() {
        pod::patch_status(daemon, made, "Running", false, None).await?;
        let netns = made.netns_path();
        let listens = listening::wait(&netns, &request.ports);
        tokio::select! {
            listens = tokio::time::timeout(LISTENS, listens) => if listens.is_err() {
                anyhow::bail!("pod {}/{} does not listen on {:?} after {} s: see its log with `trefoilctl local logs {0}/{1}`", made.namespace, made.name, request.ports, LISTENS.as_secs());
            },
            () = entry.gone.cancelled() => anyhow::bail!(
                "pod {0}/{1} ended before it listened on {2:?}: see its log with `trefoilctl local logs {0}/{1}`",
                made.namespace, made.name, request.ports
            ),
        }
    }
    if entry.gone.is_cancelled() {
        return Ok(());
    }
    pod::patch_status(daemon, made, "Running", true, None).await?;
    wait_for_services(daemon, made, request).await;
    Ok(())
}

/// Waits, a little, until the services of a pod are in force with it: what is run next may use them.
async fn wait_for_services(daemon: &Daemon, made: &MadePod, request: &PodRequest) {
    let address = IpAddr::V4(made.addresses.v4());
    let mut services = daemon.services.subscribe();
    let in_force = services.wait_for(|services| {
        let of_namespace = services
            .iter()
            .filter(|service| service.namespace == made.namespace);
        let mut endpoints = of_namespace.clone().flat_map(|service| &service.endpoints);
        let known = |name: &String| of_namespace.clone().any(|service| service.name == *name);
        endpoints.all(|endpoint| endpoint.address != address || endpoint.ready)
            && request.services.iter().all(|service| known(&service.name))
    });
    let _ = tokio::time::timeout(IN_FORCE, in_force).await;
}

/// Everything that follows a program's end.
pub(crate) async fn finish(daemon: &Daemon, entry: &PodEntry, code: i32) {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    entry.stop.cancel();
    // Peers hear of it before the addresses are given to others.
    if let Err(error) = pod::patch_status(daemon, &entry.pod, phase, false, Some(code)).await {
        tracing::debug!("pod {}/{}: {error:#}", entry.pod.namespace, entry.pod.name);
    }
    pod::tear_down(daemon, &entry.pod).await;
    daemon.forget_pod(&entry.pod);
    entry.gone.cancel();
}

/// Ends pods whose objects others delete.
pub(super) async fn watch_pods(daemon: Arc<Daemon>) {
    let api = Api::<Pod>::all(daemon.client.clone());
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    loop {
        match events.try_next().await {
            Ok(Some(Event::Delete(object))) => deleted(&daemon, &object),
            Ok(None) => return,
            // The API server is away, and the watcher comes again.
            Ok(Some(_)) | Err(_) => {}
        }
    }
}

fn deleted(daemon: &Daemon, object: &Pod) {
    let (Some(namespace), Some(name)) = (&object.metadata.namespace, &object.metadata.name) else {
        return;
    };
    if let Some(entry) = daemon.pod(namespace, name)
        && object.metadata.uid.as_ref() == Some(&entry.pod.uid)
    {
        entry.stop.cancel();
    }
}
