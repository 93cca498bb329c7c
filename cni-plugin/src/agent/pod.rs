//! One pod of the node: brings it to the plane that it is to have, one step after the other, and again from
//! wherever it stands after any failure or restart. What redirects it now is always read from the kernel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use trefoil_api::names::annotation;
use trefoil_api::proto::trefoil::v1::Plane;

use super::shared::Shared;
use super::world::{Desired, Undecided, Wish};
use crate::attachment::Attachment;
use crate::kernel::{self, KernelError, Redirection};
use crate::namespace::{self, Namespace};
use crate::redirection::{PlanePorts, PodFacts, leaving_table, pod_table};
use crate::report::{Withdrawal, placement};
use crate::zds::{FedPod, FeedError};

/// How long no control plane answers before a pod that comes is told so.
const AWAY: Duration = Duration::from_secs(5);
const WITHOUT: &str = "no control plane answers (kubectl -n trefoil-system get deployment trefoil-control-plane): nobody \
     has been told of this pod, and its connections are not served until one does";

/// How long the node proxy may take to listen in a pod.
const TAKEN: Duration = Duration::from_secs(10);
/// How long peers may take to stop tunnelling to a pod, and half a second for the answer to arrive.
const WITHDRAWN: Duration = Duration::from_millis(5500);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a pod is looked at though nothing happened: somebody may have flushed its rules, and until they are
/// back its traffic is in the clear. It costs a few netlink dumps of one small namespace.
const REVIEW: Duration = Duration::from_secs(5);
/// How long a pod that left the mesh is still served: a supervisor acknowledged that peers stop tunnelling to it,
/// and one of its workers may hear of it a moment later.
const LATE_TUNNELS: Duration = Duration::from_secs(5);

/// How a pod stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodStatus {
    /// What redirects it, once that is known.
    pub(crate) plane: Option<Plane>,
    /// It has what it is to have.
    pub(crate) settled: bool,
    /// Nothing redirects it, and nobody serves its late tunnels any more.
    pub(crate) left: bool,
    /// The network that this is about.
    pub(crate) container_id: String,
    /// What stands in the way, or is to be said about it.
    pub(crate) remark: Option<String>,
}

/// Why a pod is not on its plane yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error(transparent)]
    Undecided(#[from] Undecided),
    #[error("its network namespace is not found: {0}")]
    NoNamespace(io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("its sockets cannot be read: {0}")]
    Sockets(io::Error),
    #[error("nothing listens on {0:?} in it: is its sidecar running?")]
    NoSidecar(Vec<u16>),
    #[error(transparent)]
    Feed(#[from] FeedError),
}

/// A pod that just left the mesh.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// What served it.
    plane: Plane,
    /// Until when late tunnels are served.
    until: Instant,
}

impl Leaving {
    fn rest(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Keeps one pod as `target` says until that is `None`.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    mut target: watch::Receiver<Option<Desired>>,
    status: watch::Sender<PodStatus>,
) {
    let mut pause = FIRST_PAUSE;
    let mut uid = String::new();
    let mut begun = None;
    let mut leaving = None;
    loop {
        let Some(mut desired) = target.borrow_and_update().clone() else {
            break;
        };
        // Once a network was brought to its plane, the pod's containers start: from then on its sidecar is to
        // listen before anything is sent to it.
        desired.fresh &= begun.as_ref() != Some(&container_id(&desired));
        uid.clone_from(&desired.uid);
        let brought = {
            let _place = shared.parallel.acquire().await;
            bring(&shared, &desired, &mut leaving).await
        };
        let mut now = PodStatus {
            container_id: container_id(&desired),
            ..PodStatus::default()
        };
        let wait = match brought {
            Ok(plane) => {
                now.plane = Some(plane);
                now.settled = true;
                // What is written on it is gone when the API says so: nobody would take it away afterwards.
                let unmarked = !desired.leaves || desired.annotated.is_none();
                now.left = plane == Plane::None && leaving.is_none() && unmarked;
                begun = Some(now.container_id.clone());
                now.remark = desired.wish.ok().and_then(|wish| wish.remark);
                pause = FIRST_PAUSE;
                leaving.map_or(REVIEW, |leaving: Leaving| leaving.rest().min(REVIEW))
            }
            Err(error) => {
                now.plane = status.borrow().plane;
                now.remark = Some(error.to_string());
                if !is_awaited(&error, &desired) && status.borrow().remark != now.remark {
                    complain(&shared, &desired, &error).await;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                pause
            }
        };
        status.send_replace(now);
        tokio::select! {
            changed = target.changed() => if changed.is_err() { return } else { pause = FIRST_PAUSE },
            () = tokio::time::sleep(wait) => {}
        }
    }
    shared.forget(&uid);
}

/// Whether an error is only a matter of time: the network of a pod that was just scheduled is yet to be made,
/// and an agent that just began is yet to learn the rest.
fn is_awaited(error: &PodError, desired: &Desired) -> bool {
    match error {
        PodError::NoNamespace(_) => desired.attachment.is_none(),
        PodError::Undecided(Undecided::NotYet(_)) => true,
        _ => false,
    }
}

async fn complain(shared: &Shared, desired: &Desired, error: &PodError) {
    shared.metrics.failures.inc();
    tracing::warn!(namespace = %desired.namespace, pod = %desired.name, %error, "not on its plane");
    shared
        .tell(desired, "RedirectionFailed", &error.to_string())
        .await;
}

fn container_id(desired: &Desired) -> String {
    let attachment = desired.attachment.as_ref();
    attachment.map_or_else(String::new, |attachment| attachment.container_id.clone())
}

/// Brings a pod to its plane from wherever it stands; returns the plane.
async fn bring(shared: &Shared, desired: &Desired, leaving: &mut Option<Leaving>) -> Result<Plane, PodError> {
    if desired.host_network {
        return Ok(Plane::None);
    }
    let network = match find(shared, desired) {
        Ok(network) => network,
        Err(error) if desired.wish.as_ref().is_ok_and(|wish| wish.plane == Plane::None) => {
            tracing::debug!(pod = %desired.name, %error, "nothing to do");
            place(shared, desired, Plane::None);
            return Ok(Plane::None);
        }
        Err(error) => return Err(PodError::NoNamespace(error)),
    };
    let now = kernel::inspect(&network).await?;
    let wish = match &desired.wish {
        Ok(wish) => wish,
        Err(reason) => {
            // It keeps what it has.
            place(shared, desired, now.plane);
            return Err(reason.clone().into());
        }
    };
    if !matches!(wish.plane, Plane::None | Plane::Unspecified) {
        *leaving = None;
    }
    match wish.plane {
        Plane::Node => to_node(shared, desired, &wish.facts, &network, &now).await?,
        Plane::Sidecar => to_sidecar(shared, desired, &wish.facts, &network, &now).await?,
        Plane::None | Plane::Unspecified => {
            to_none(shared, desired, &wish.facts, &network, &now, leaving).await?;
        }
    }
    if now.plane != wish.plane {
        tell_switch(shared, desired, wish, now.plane).await;
    }
    if now.enrolled || desired.leaves || wish.plane != Plane::None {
        annotate(shared, desired, wish.plane).await;
    }
    Ok(wish.plane)
}

/// Listeners first, then redirection, then the news: nobody is ever sent to where nobody listens.
async fn to_node(
    shared: &Shared,
    desired: &Desired,
    facts: &PodFacts,
    network: &Namespace,
    now: &Redirection,
) -> Result<(), PodError> {
    kernel::prepare(network).await?;
    if !now.enrolled {
        kernel::apply(network, &pod_table(facts, Plane::None)).await?;
    }
    shared.feed.add(fed(desired, network));
    // One that is there already stays while the node proxy is away: its listeners are kept.
    if now.plane != Plane::Node {
        shared.feed.taken(&desired.uid, TAKEN).await?;
    }
    begin(network, facts, now, Plane::Node).await?;
    place(shared, desired, Plane::Node);
    remember_found(shared, desired, network);
    Ok(())
}

/// Redirects to a plane; what began when nothing was redirected must not lead later connections past it.
async fn begin(
    network: &Namespace,
    facts: &PodFacts,
    now: &Redirection,
    plane: Plane,
) -> Result<(), KernelError> {
    kernel::apply(network, &pod_table(facts, plane)).await?;
    if now.plane == Plane::None {
        kernel::forget_unredirected(network).await?;
    }
    Ok(())
}

/// A pod that was found by its processes is found again after a restart, also while the API server is away.
fn remember_found(shared: &Shared, desired: &Desired, network: &Namespace) {
    let told = desired.attachment.clone();
    let identity = Some(network.identity());
    if told.as_ref().is_some_and(|told| told.identity == identity) {
        return;
    }
    let found = Attachment {
        uid: desired.uid.clone(),
        namespace: desired.namespace.clone(),
        name: desired.name.clone(),
        container_id: container_id(desired),
        netns: told.as_ref().map(|told| told.netns.clone()).unwrap_or_default(),
        addresses: told.map(|told| told.addresses).unwrap_or_default(),
        identity,
        service_account: desired.service_account.clone(),
    };
    if shared.state.attachment(&desired.uid).as_ref() == Some(&found) {
        return;
    }
    if let Err(error) = shared.state.attach(&found) {
        tracing::warn!(pod = %desired.name, %error, "state directory: a pod's network is not remembered");
    }
}

/// Only where a sidecar listens. In a pod that is being made nothing runs yet: it begins redirected, and its
/// connections are refused until the sidecar is there.
async fn to_sidecar(
    shared: &Shared,
    desired: &Desired,
    facts: &PodFacts,
    network: &Namespace,
    now: &Redirection,
) -> Result<(), PodError> {
    let beginning = desired.fresh && !now.enrolled;
    if now.plane != Plane::Sidecar && !beginning {
        let listening = network.listening_ports().map_err(PodError::Sockets)?;
        let wanted = PlanePorts::of(Plane::Sidecar).map(|ports| [ports.outbound, ports.inbound, ports.hbone]);
        let missing: Vec<u16> = wanted
            .into_iter()
            .flatten()
            .filter(|port| !listening.contains(port))
            .collect();
        if !missing.is_empty() {
            place(shared, desired, now.plane);
            return Err(PodError::NoSidecar(missing));
        }
    }
    kernel::prepare(network).await?;
    begin(network, facts, now, Plane::Sidecar).await?;
    place(shared, desired, Plane::Sidecar);
    shared.feed.remove(&desired.uid);
    Ok(())
}

/// Peers are told first, and asked to answer; then redirection stops, and a little later so does serving late
/// tunnels.
async fn to_none(
    shared: &Shared,
    desired: &Desired,
    facts: &PodFacts,
    network: &Namespace,
    now: &Redirection,
    leaving: &mut Option<Leaving>,
) -> Result<(), PodError> {
    if now.enrolled && now.plane != Plane::None {
        withdraw(shared, desired, now.plane).await;
        *leaving = Some(Leaving {
            plane: now.plane,
            until: Instant::now() + LATE_TUNNELS,
        });
    }
    *leaving = leaving.filter(|leaving| !leaving.rest().is_zero());
    if now.enrolled {
        let left = leaving.map_or(Plane::None, |leaving| leaving.plane);
        kernel::apply(network, &leaving_table(facts, left)).await?;
    }
    place(shared, desired, Plane::None);
    if leaving.is_none() {
        shared.feed.remove(&desired.uid);
    }
    Ok(())
}

async fn withdraw(shared: &Shared, desired: &Desired, plane: Plane) {
    let leaving = placement(&desired.uid, &desired.namespace, &desired.name, plane);
    let message = match shared.reports.withdraw(leaving, WITHDRAWN).await {
        Withdrawal::Acknowledged => return,
        Withdrawal::Unanswered(peers) => {
            format!("these peers may still tunnel to it: {}", peers.join(", "))
        }
        Withdrawal::ControlPlaneAway => {
            "the control plane did not say who stopped tunnelling to it".to_string()
        }
    };
    tracing::warn!(namespace = %desired.namespace, pod = %desired.name, message, "withdrawn unanswered");
    shared.tell(desired, "WithdrawalUnanswered", &message).await;
}

/// Finds the pod's network namespace: where the runtime said, else by its processes.
fn find(shared: &Shared, desired: &Desired) -> io::Result<Namespace> {
    if let Some(attachment) = &desired.attachment
        && let Ok(network) = Namespace::open_named(&attachment.netns, &shared.options.netns_root)
        && attachment
            .identity
            .is_none_or(|identity| identity == network.identity())
        && network.identity() != shared.host.identity()
    {
        return Ok(network);
    }
    namespace::find_of_pod(&shared.options.proc_root, &desired.uid, &shared.host)
}

/// Says what redirects a pod as the agent begins, and puts one that the node proxy serves already into the feed: the first
/// report and the first snapshot must name it.
pub(crate) async fn restore(shared: &Shared, desired: &Desired) {
    if desired.host_network {
        return;
    }
    let Ok(network) = find(shared, desired) else {
        return;
    };
    if let Ok(now) = kernel::inspect(&network).await {
        if now.plane == Plane::Node {
            shared.feed.add(fed(desired, &network));
        }
        // Whichever it is: a pod that a first report lacks is taken for one without a plane.
        place(shared, desired, now.plane);
    }
}

fn fed(desired: &Desired, network: &Namespace) -> FedPod {
    FedPod {
        uid: desired.uid.clone(),
        namespace: desired.namespace.clone(),
        name: desired.name.clone(),
        service_account: desired.service_account.clone(),
        network: network.clone(),
    }
}

fn place(shared: &Shared, desired: &Desired, plane: Plane) {
    let known = placement(&desired.uid, &desired.namespace, &desired.name, plane);
    shared.reports.place(known);
}

async fn tell_switch(shared: &Shared, desired: &Desired, wish: &Wish, before: Plane) {
    let (from, to) = (plane_name(before), plane_name(wish.plane));
    tracing::info!(namespace = %desired.namespace, pod = %desired.name, from, to, "redirected");
    shared.metrics.switched(from, to);
    if let Some(remark) = &wish.remark {
        shared.tell(desired, "PlaneDiffers", remark).await;
    }
    let away = shared.reports.replicas().is_empty() && shared.reports.connected_or_away() > AWAY;
    if wish.plane == Plane::Node && away {
        shared.tell(desired, "ControlPlaneAway", WITHOUT).await;
    }
}

async fn annotate(shared: &Shared, desired: &Desired, plane: Plane) {
    let text = Some(plane_name(plane)).filter(|_| !desired.leaves);
    if desired.annotated.as_deref() != text {
        shared.annotate(desired, annotation::REDIRECTION, text).await;
    }
}

/// A plane as the annotation names it.
pub(crate) fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Node => "node",
        Plane::Sidecar => "sidecar",
        Plane::None => "none",
        Plane::Unspecified => "unclear",
    }
}
