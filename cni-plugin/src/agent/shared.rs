//! What all parts of the agent share, and the few things that it says to the API server. None of them is
//! waited for by redirection: annotations and events are for people.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::metrics::Metrics;
use super::options::Options;
use super::pod::PodStatus;
use super::world::Desired;
use crate::attachment::StateDirectory;
use crate::descriptors::DescriptorStore;
use crate::namespace::Namespace;
use crate::report::Reports;
use crate::zds::Feed;

/// Pods that are worked on at a time.
const PARALLEL: usize = 64;

/// A pod's name and how it stands.
pub(crate) type Standing = (String, String, watch::Receiver<PodStatus>);

/// The parts that outlive any one pod.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) client: kube::Client,
    pub(crate) host: Namespace,
    pub(crate) feed: Arc<Feed>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) store: Arc<DescriptorStore>,
    pub(crate) state: StateDirectory,
    pub(crate) metrics: Metrics,
    pub(crate) parallel: Semaphore,
    /// How each pod stands: for admin and metrics.
    pub(crate) standing: Mutex<BTreeMap<String, Standing>>,
    recorder: Recorder,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        client: kube::Client,
        host: Namespace,
        state: StateDirectory,
    ) -> Self {
        let reporter = kube::runtime::events::Reporter {
            controller: "trefoil-cni".into(),
            instance: Some(options.node.clone()),
        };
        let store = Arc::new(DescriptorStore::default());
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            options,
            client,
            host,
            feed: Arc::new(Feed::new(Arc::clone(&store))),
            reports: Arc::default(),
            store,
            state,
            metrics: Metrics::default(),
            parallel: Semaphore::new(PARALLEL),
            standing: Mutex::default(),
        }
    }

    pub(crate) fn standing(&self) -> BTreeMap<String, Standing> {
        let standing = self.standing.lock();
        standing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A pod ended: nobody is to serve it, and nothing of it is to be kept.
    pub(crate) fn forget(&self, uid: &str) {
        self.feed.remove(uid);
        self.reports.remove(uid);
        self.store.forget_pod(uid);
        if let Err(error) = self.state.detach(uid) {
            tracing::warn!(%uid, %error, "state directory: a file could not be removed");
        }
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.remove(uid);
    }

    /// Records an event of a pod.
    pub(crate) async fn tell(&self, pod: &Desired, reason: &str, note: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(note.chars().take(1000).collect()),
            action: "Redirect".into(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::debug!(%error, "an event was not recorded");
        }
    }

    /// Writes an annotation of a pod, of this very pod and not of a namesake, or takes it away.
    pub(crate) async fn annotate(&self, pod: &Desired, key: &str, value: Option<&str>) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let patch = json!({"metadata": {"uid": pod.uid, "annotations": {key: value}}});
        let patched = api
            .patch_metadata(&pod.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        if let Err(error) = patched {
            tracing::debug!(%error, pod = %pod.name, "an annotation was not written");
        }
    }
}
