//! Watches objects, of a cluster or of the embedded store, and keeps the index by them. The one task that
//! owns the index; everything else sends it changes. Nothing behind this line knows where objects come from.

mod watches;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use trefoil_api::names::{MESH_CONFIG, MESH_NAMESPACE};

use crate::serve::certificates::Mesh;
use crate::serve::metrics::{Metrics, TypeLabel};
use crate::serve::xds::Hub;
use trefoil_control_plane_index::snapshot::ResourceKind;
use trefoil_control_plane_index::{Change, Deployable, Index, Kind, ObjectKey, ObjectStatus, PolicyReport};

/// Changes that are taken together.
const BATCH: usize = 4096;

/// What reaches the task of the index.
#[derive(Debug)]
pub(crate) enum Event {
    /// Objects changed.
    Changes(Vec<Change>, Option<oneshot::Sender<()>>),
    /// A whole list: what of the kind is not in it is gone.
    Listed(Kind, Vec<Change>, BTreeSet<ObjectKey>),
}

/// What the rest of the control plane sees of the index.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overview {
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// What is wrong with the mesh configuration.
    pub config_errors: Vec<String>,
    /// Kinds of objects that are not listed yet.
    pub awaited: Vec<String>,
    /// What is found wrong with single services, pods and NetworkPolicies.
    pub findings: Vec<String>,
    #[serde(skip)]
    /// What became of the policies.
    pub reports: Arc<Vec<PolicyReport>>,
    /// The waypoints that are to have pods.
    #[serde(skip)]
    pub waypoints: Arc<Vec<Deployable>>,
    /// What is to be said in the status of the Gateway API's objects.
    #[serde(skip)]
    pub statuses: Arc<Vec<ObjectStatus>>,
}

/// A handle on the task.
#[derive(Clone)]
pub struct Objects {
    events: mpsc::Sender<Event>,
    client: kube::Client,
    overview: watch::Receiver<Arc<Overview>>,
    mesh: watch::Receiver<Arc<Mesh>>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Overview {
    /// What is wrong with the mesh as a whole, and what to do about it.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let of_config = |error: &String| {
            format!(
                "the mesh configuration is not understood: {error}; correct ConfigMap {MESH_NAMESPACE}/{MESH_CONFIG}"
            )
        };
        self.config_errors.iter().map(of_config).collect()
    }
}

impl Objects {
    /// Starts the watches and the task of the index.
    #[must_use]
    pub fn start(
        client: kube::Client,
        trust_domain: &str,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let index = Index::new(trust_domain);
        let (events, receiver) = mpsc::channel(1024);
        let (overview, overview_receiver) = watch::channel(Arc::default());
        let (mesh, mesh_receiver) = watch::channel(Arc::new(mesh_of(&index)));
        let task = Task {
            index,
            awaited: Kind::ALL.into_iter().collect(),
            awaited_changed: true,
            hub,
            metrics,
            overview,
            mesh,
        };
        tokio::spawn(task.run(receiver, stop.clone()));
        watches::start(&client, &events, stop);
        Self {
            events,
            client,
            overview: overview_receiver,
            mesh: mesh_receiver,
        }
    }

    /// Takes changes in, and returns when their consequences are being served. False when this process ends.
    pub async fn apply(&self, changes: Vec<Change>) -> bool {
        let (done, served) = oneshot::channel();
        let event = Event::Changes(changes, Some(done));
        self.events.send(event).await.is_ok() && served.await.is_ok()
    }

    /// The mesh configuration, as it changes.
    #[must_use]
    pub fn mesh(&self) -> watch::Receiver<Arc<Mesh>> {
        self.mesh.clone()
    }

    /// What is seen of the index, as it changes.
    #[must_use]
    pub fn overview(&self) -> watch::Receiver<Arc<Overview>> {
        self.overview.clone()
    }

    /// The node of a pod with this uid.
    pub async fn node_of(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
    ) -> Result<Option<String>, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods.get_opt(pod).await?;
        Ok(pod
            .filter(|pod| pod.metadata.uid.as_deref() == Some(uid))
            .and_then(|pod| pod.spec?.node_name))
    }
}

struct Task {
    index: Index,
    awaited: BTreeSet<Kind>,
    awaited_changed: bool,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    overview: watch::Sender<Arc<Overview>>,
    mesh: watch::Sender<Arc<Mesh>>,
}

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = events.recv_many(&mut batch, BATCH) => received,
            };
            if received == 0 {
                return;
            }
            let mut served = Vec::new();
            for event in batch.drain(..) {
                served.extend(self.take(event));
            }
            self.publish();
            for done in served {
                // Whoever waited may have gone.
                let _ = done.send(());
            }
        }
    }

    fn take(&mut self, event: Event) -> Option<oneshot::Sender<()>> {
        match event {
            Event::Changes(changes, done) => {
                changes.into_iter().for_each(|change| self.index.apply(change));
                done
            }
            Event::Listed(kind, changes, listed) => {
                for key in self.index.keys(kind) {
                    if !listed.contains(&key) {
                        self.index.delete(kind, key);
                    }
                }
                changes.into_iter().for_each(|change| self.index.apply(change));
                self.awaited_changed |= self.awaited.remove(&kind);
                None
            }
        }
    }

    fn publish(&mut self) {
        let changes = self.index.flush();
        for kind in ResourceKind::ALL {
            let encoded = changes.encoded(kind) as u64;
            self.metrics
                .encoded
                .get_or_create(&TypeLabel::of(kind))
                .inc_by(encoded);
        }
        if std::mem::take(&mut self.awaited_changed) | self.index.take_news() {
            self.tell();
        }
        // Clients are served nothing before everything is known: half a mesh would close or open too much.
        if !self.awaited.is_empty() {
            return;
        }
        let snapshot = self.index.snapshot();
        for kind in ResourceKind::ALL {
            let gauge = self.metrics.resources.get_or_create(&TypeLabel::of(kind)).clone();
            gauge.set(i64::try_from(snapshot.of(kind).len()).unwrap_or(i64::MAX));
        }
        self.hub.publish(snapshot, &changes);
    }

    /// Says what is seen of the index beside resources.
    fn tell(&mut self) {
        let overview = Overview {
            namespaces: self.index.namespaces().map(str::to_owned).collect(),
            config_errors: self
                .index
                .config_errors()
                .iter()
                .map(ToString::to_string)
                .collect(),
            awaited: self.awaited.iter().map(|kind| format!("{kind:?}")).collect(),
            findings: self.index.findings().collect(),
            reports: Arc::new(self.index.reports().cloned().collect()),
            waypoints: Arc::new(self.index.deployables().collect()),
            statuses: Arc::new(self.index.statuses().cloned().collect()),
        };
        self.overview.send_if_modified(|known| {
            let differs = **known != overview;
            if differs {
                *known = Arc::new(overview);
            }
            differs
        });
        let mesh = mesh_of(&self.index);
        self.mesh.send_if_modified(|known| {
            let differs = **known != mesh;
            if differs {
                *known = Arc::new(mesh);
            }
            differs
        });
    }
}

fn mesh_of(index: &Index) -> Mesh {
    Mesh {
        trust_domain: index.trust_domain().to_owned(),
        config: index.config().clone(),
    }
}
