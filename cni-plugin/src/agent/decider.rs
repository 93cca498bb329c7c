//! Turns observations into wishes, one pod at a time, and hands each to the task that keeps its pod. It does
//! no work on pods itself, so that no pod waits for another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::{mpsc, watch};
use trefoil_api::mesh_config::MeshConfig;
use trefoil_api::names::annotation;

use super::observe::Observation;
use super::pod::{self, PodStatus};
use super::shared::Shared;
use super::world::{Desired, Settings, Undecided, World};
use crate::attachment::{Attachment, LastKnown};
use crate::kernel::apply;
use crate::namespace::Namespace;
use crate::redirection::host::host_table;

/// How long the API server may be silent before the node proxy gets what was known before.
const SILENCE: Duration = Duration::from_secs(10);

struct Kept {
    target: watch::Sender<Option<Desired>>,
    status: watch::Receiver<PodStatus>,
}

/// The one that decides.
pub(crate) struct Decider {
    shared: Arc<Shared>,
    world: World,
    kept: BTreeMap<String, Kept>,
    remembered: Option<LastKnown>,
    /// The pods were listed.
    listed: bool,
    /// Addresses for the host's rules, once all are known.
    pub(crate) meshed: watch::Sender<Option<BTreeSet<IpAddr>>>,
    /// The request that the mesh be removed from the node.
    pub(crate) removal: watch::Sender<Option<String>>,
    /// Uids of the node proxy's pods.
    pub(crate) proxies: watch::Sender<BTreeSet<String>>,
}

impl Decider {
    /// Begins with what was known before a restart.
    pub(crate) fn restored(shared: Arc<Shared>) -> std::io::Result<Self> {
        let remembered = shared.state.last_known();
        let proxies = node_proxies(None, remembered.as_ref());
        let mut world = World::restored(shared.state.attachments()?);
        let removal = remembered.as_ref().and_then(|last| last.removal.clone());
        world.set_removal(removal.clone());
        Ok(Self {
            world,
            shared,
            kept: BTreeMap::new(),
            remembered,
            listed: false,
            meshed: watch::Sender::new(None),
            removal: watch::Sender::new(removal),
            proxies: watch::Sender::new(proxies),
        })
    }

    /// Decides until there is nothing more to learn.
    pub(crate) async fn run(mut self, mut observations: mpsc::Receiver<Observation>) {
        self.restore_from_disk().await;
        let silence = tokio::time::sleep(SILENCE);
        tokio::pin!(silence);
        let mut waiting = true;
        loop {
            tokio::select! {
                observation = observations.recv() => match observation {
                    Some(observation) => {
                        let listed = matches!(observation, Observation::Pods(_));
                        self.learn(observation, waiting).await;
                        if listed && std::mem::take(&mut waiting) {
                            self.shared.feed.open();
                        }
                    }
                    None => return,
                },
                () = &mut silence, if waiting => {
                    waiting = false;
                    tracing::warn!("no pods from the API server yet; serving those that were known");
                    self.shared.feed.open();
                }
            }
        }
    }

    async fn learn(&mut self, observation: Observation, first: bool) {
        match observation {
            Observation::Pods(pods) => {
                for uid in self.world.set_pods(pods) {
                    self.release(&uid);
                }
                self.listed = true;
                if first {
                    self.restore_listed().await;
                }
                self.decide_all();
            }
            Observation::Pod(pod) => {
                if let Some(uid) = self.world.set_pod(*pod, true) {
                    self.decide(&uid);
                }
            }
            Observation::PodGone(uid) => {
                self.world.remove_pod(&uid);
                self.release(&uid);
            }
            Observation::Namespaces(namespaces) => {
                self.world.set_namespaces(namespaces);
                self.decide_all();
            }
            Observation::Namespace(name, labels) => {
                self.world.set_namespace(name, labels);
                self.decide_all();
            }
            Observation::MeshConfig(map) => self.configure(map.as_deref()),
            Observation::Attached {
                pod,
                attachment,
                reply,
            } => {
                let uid = attachment.uid.clone();
                self.world.set_pod(*pod, false);
                self.world.attach(attachment, true);
                self.decide(&uid);
                if let Some(kept) = self.kept.get(&uid) {
                    // The caller may have given up.
                    reply.send(kept.status.clone()).ok();
                }
            }
            Observation::Detached { uid, container_id } => self.detach(&uid, &container_id),
            Observation::ValidContainers(valid) => {
                for (uid, container_id) in self.world.containers() {
                    if !valid.contains(&container_id) {
                        self.detach(&uid, &container_id);
                    }
                }
            }
        }
        self.publish();
    }

    fn detach(&mut self, uid: &str, container_id: &str) {
        let uid = match uid {
            "" => self.world.attached_as(container_id),
            uid => Some(uid.to_string()),
        };
        if let Some(uid) = uid
            && self.world.detach(&uid, container_id)
        {
            self.release(&uid);
        }
    }

    fn configure(&mut self, map: Option<&ConfigMap>) {
        // Without the object nothing is said: it goes when the mesh does, maybe before this agent.
        if let Some(map) = map {
            let annotations = map.metadata.annotations.as_ref();
            let said = annotations.and_then(|all| all.get(annotation::REMOVAL));
            let request = said.filter(|said| *said != annotation::NO_REMOVAL).cloned();
            if *self.removal.borrow() != request {
                self.world.set_removal(request.clone());
                self.removal.send_replace(request);
                self.decide_all();
            }
        }
        let text = map.and_then(|map| map.data.as_ref()?.get("mesh.yaml"));
        match MeshConfig::parse(text.map_or("", String::as_str)) {
            Ok(config) => {
                self.world.set_settings(Settings {
                    pod_overrides: config.pod_overrides,
                    dns_capture: config.dns_capture,
                });
                self.decide_all();
            }
            Err(error) => {
                tracing::warn!(%error, "mesh configuration not understood; the last one stays in force");
                if !self.world.configured() {
                    let last = self.remembered.as_ref();
                    self.world.set_settings(Settings {
                        pod_overrides: last.is_none_or(|last| last.pod_overrides),
                        dns_capture: last.is_none_or(|last| last.dns_capture),
                    });
                    self.decide_all();
                }
            }
        }
    }

    fn decide_all(&mut self) {
        for uid in self.world.uids() {
            self.decide(&uid);
        }
    }

    fn decide(&mut self, uid: &str) {
        let Some(desired) = self.world.desired(uid) else {
            self.release(uid);
            return;
        };
        if let Some(kept) = self.kept.get(uid) {
            kept.target.send_if_modified(|target| {
                let changed = target.as_ref() != Some(&desired);
                if changed {
                    *target = Some(desired);
                }
                changed
            });
            return;
        }
        let (status, standing) = watch::channel(PodStatus::default());
        let named = (desired.namespace.clone(), desired.name.clone(), standing.clone());
        let target = watch::Sender::new(Some(desired));
        let mut pods = self
            .shared
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pods.insert(uid.into(), named);
        drop(pods);
        tokio::spawn(pod::keep(Arc::clone(&self.shared), target.subscribe(), status));
        let status = standing;
        self.kept.insert(uid.into(), Kept { target, status });
    }

    /// A pod ended.
    fn release(&mut self, uid: &str) {
        match self.kept.remove(uid) {
            Some(kept) => {
                kept.target.send_replace(None);
            }
            None => self.shared.forget(uid),
        }
    }

    /// Pods that the node proxy serves are in the feed before it asks, from what the state directory says.
    async fn restore_from_disk(&self) {
        let Ok(attachments) = self.shared.state.attachments() else {
            return;
        };
        for attachment in attachments {
            pod::restore(&self.shared, &remembered(attachment)).await;
        }
    }

    /// The same for pods whose attachments were lost, or never known.
    async fn restore_listed(&self) {
        let fed: BTreeSet<String> = self.shared.feed.pods().into_iter().collect();
        for uid in self.world.uids() {
            if let Some(desired) = self.world.desired(&uid)
                && !fed.contains(&uid)
            {
                pod::restore(&self.shared, &desired).await;
            }
        }
    }

    fn publish(&mut self) {
        let listed = self.listed.then_some(&self.world);
        let proxies = node_proxies(listed, self.remembered.as_ref());
        let known = self.world.last_known().map(|known| LastKnown {
            node_proxies: proxies.clone(),
            ..known
        });
        if self.listed {
            self.shared
                .feed
                .set_present(self.world.uids().into_iter().collect());
        }
        // A list with gaps would take probes from pods that have them.
        // And pods that are leaving are probed until they have left.
        if self.listed && known.is_some() && self.removal.borrow().is_none() {
            let meshed = Some(self.world.meshed_addresses());
            self.meshed.send_if_modified(|current| {
                let changed = *current != meshed;
                *current = meshed;
                changed
            });
        }
        self.proxies.send_replace(proxies);
        if known.is_some() && known != self.remembered {
            if let Some(known) = &known
                && let Err(error) = self.shared.state.remember(known)
            {
                tracing::warn!(%error, "state directory: what is known was not written");
            }
            self.remembered = known;
        }
    }
}

/// Uids of the node proxy's pods: as they are listed, else as they were when they last were.
fn node_proxies(listed: Option<&World>, remembered: Option<&LastKnown>) -> BTreeSet<String> {
    match (listed, remembered) {
        (Some(world), _) => world.node_proxies(),
        (None, Some(last)) => last.node_proxies.clone(),
        (None, None) => BTreeSet::new(),
    }
}

/// What is known of a pod from its attachment alone.
fn remembered(attachment: Attachment) -> Desired {
    Desired {
        uid: attachment.uid.clone(),
        namespace: attachment.namespace.clone(),
        name: attachment.name.clone(),
        service_account: attachment.service_account.clone(),
        host_network: false,
        wish: Err(Undecided::NotYet("the pod".into())),
        attachment: Some(attachment),
        fresh: false,
        annotated: None,
        leaves: false,
    }
}

/// Keeps the host's rules in step with the pods until the task is dropped.
pub(crate) async fn keep_host(
    shared: Arc<Shared>,
    host: Namespace,
    mut meshed: watch::Receiver<Option<BTreeSet<IpAddr>>>,
    mut removal: watch::Receiver<Option<String>>,
) {
    let mut pause = Duration::from_millis(100);
    let mut said = String::new();
    loop {
        // From then on they are the removal's.
        if removal.wait_for(Option::is_none).await.is_err() {
            return;
        }
        let Ok(known) = meshed.wait_for(Option::is_some).await.map(|known| known.clone()) else {
            return;
        };
        let table = host_table(shared.options.kubelet_uid, &known.unwrap_or_default());
        let wait = match apply(&host, &table).await {
            Ok(_) => {
                said.clear();
                Duration::from_secs(60)
            }
            Err(error) => {
                let reason = error.to_string();
                if said != reason {
                    tracing::warn!(%reason, "probes are not recognised: the host's rules were not installed");
                    said = reason;
                }
                pause = (pause * 2).min(Duration::from_secs(5));
                pause
            }
        };
        tokio::select! {
            changed = meshed.changed() => if changed.is_err() { return },
            changed = removal.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}
