//! One pod of a waypoint: made, watched for readiness, and taken away only after nobody is sent to it any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use trefoil_api::names::{MANAGER, label, port};

use super::plan::Name;
use crate::daemon::{Daemon, PodEntry, finish};
use crate::mesh::Node;
use crate::pod;
use crate::protocol::PodRequest;
use crate::sidecar::{self, Proxy};

/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a pod that is to leave serves on, so that its clients hear of it first.
const LEAVE: Duration = Duration::from_secs(1);

/// A pod.
#[derive(Debug)]
pub(super) struct Replica {
    entry: PodEntry,
    /// It is to leave.
    leaving: CancellationToken,
    /// Nothing of it is left, its object included: another may have its name.
    gone: CancellationToken,
}

impl Replica {
    /// Its node.
    pub(super) fn node(&self) -> u8 {
        self.entry.pod.node().0
    }

    /// Asks it to leave.
    pub(super) fn leave(&self) {
        self.leaving.cancel();
    }

    /// Whether it is to leave.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Whether nothing of it is left.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }
}

/// Makes a pod of a waypoint and starts its program.
pub(super) async fn start(
    daemon: &Arc<Daemon>,
    (namespace, name): &Name,
    number: u32,
    node: Option<Node>,
) -> anyhow::Result<Replica> {
    // Before anything is made for it.
    super::super::binary(Proxy::Waypoint.binary())?;
    let pod = format!("{name}-{number}");
    anyhow::ensure!(
        daemon.pod(namespace, &pod).is_none(),
        "pod {namespace}/{pod} runs already and is not the waypoint's"
    );
    let request = PodRequest {
        namespace: namespace.clone(),
        name: pod,
        node: node.map(Node::name),
        service_account: name.clone(),
        labels: BTreeMap::from([
            (label::GATEWAY_NAME.to_owned(), name.clone()),
            (label::MANAGED_BY.to_owned(), MANAGER.to_owned()),
        ]),
        ports: vec![port::HBONE],
        command: vec![Proxy::Waypoint.binary().into(), "run".into()],
        ..PodRequest::default()
    };
    let made = pod::make(daemon, &request, false).await?;
    let entry = PodEntry {
        pod: made,
        pid: None,
        command: request.command,
        stop: CancellationToken::new(),
        gone: CancellationToken::new(),
    };
    daemon.hold_pod(entry.clone());
    let started = sidecar::start_process(daemon, &entry.pod, Proxy::Waypoint).await;
    if let Err(error) = started {
        finish(daemon, &entry, 127).await;
        pod::remove_object(daemon, &entry.pod).await;
        return Err(error).context("starting its program");
    }
    let replica = Replica {
        entry,
        leaving: CancellationToken::new(),
        gone: CancellationToken::new(),
    };
    let attended = attend(daemon.clone(), replica.entry.clone(), replica.leaving.clone());
    let gone = replica.gone.clone().drop_guard();
    tokio::spawn(async move {
        attended.await;
        drop(gone);
    });
    Ok(replica)
}

/// Writes whether the pod is ready, until it leaves or is ended.
async fn attend(daemon: Arc<Daemon>, entry: PodEntry, leaving: CancellationToken) {
    let mut shown = None;
    let looking = async {
        loop {
            let ready = matches!(sidecar::probe(&entry.pod).await, Ok((200, _)));
            if shown != Some(ready) {
                show(&daemon, &entry, ready).await;
                shown = Some(ready);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = looking => {}
        () = entry.stop.cancelled() => {}
        () = leaving.cancelled() => {
            show(&daemon, &entry, false).await;
            tokio::select! {
                () = tokio::time::sleep(LEAVE) => {}
                () = entry.stop.cancelled() => {}
            }
        }
    }
    // Its process is asked to end, and drains, before anything of the pod is taken down.
    sidecar::stop(&daemon, &entry.pod).await;
    finish(&daemon, &entry, 0).await;
    pod::remove_object(&daemon, &entry.pod).await;
}

async fn show(daemon: &Daemon, entry: &PodEntry, ready: bool) {
    if let Err(error) = pod::patch_status(daemon, &entry.pod, "Running", ready, None).await {
        tracing::debug!("pod {}/{}: {error:#}", entry.pod.namespace, entry.pod.name);
    }
}
