//! Watches of the API server, turned into observations. Nothing here decides; a watch that breaks begins anew
//! and says the whole again.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::Api;
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use tokio::sync::{mpsc, oneshot, watch as channel};
use trefoil_api::names::{MESH_CONFIG, MESH_NAMESPACE};
use trefoil_api::plane::Labels;

use super::pod::PodStatus;
use crate::attachment::Attachment;

/// Something that the agent learned.
pub(crate) enum Observation {
    Pods(Vec<Pod>),
    Pod(Box<Pod>),
    PodGone(String),
    Namespaces(BTreeMap<String, Labels>),
    Namespace(String, Option<Labels>),
    MeshConfig(Option<Box<ConfigMap>>),
    Attached {
        pod: Box<Pod>,
        attachment: Attachment,
        reply: oneshot::Sender<channel::Receiver<PodStatus>>,
    },
    Detached {
        uid: String,
        container_id: String,
    },
    ValidContainers(Vec<String>),
}

/// Where observations go.
pub(crate) type Observations = mpsc::Sender<Observation>;

/// Watches the pods of a node.
pub(crate) async fn pods(client: kube::Client, node: String, to: Observations) {
    let config = Config::default().fields(&format!("spec.nodeName={node}"));
    let mut listed = Vec::new();
    let translate = move |event| match event {
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(pod) => {
            listed.push(pod);
            None
        }
        Event::InitDone => Some(Observation::Pods(std::mem::take(&mut listed))),
        Event::Apply(pod) => Some(Observation::Pod(Box::new(pod))),
        Event::Delete(pod) => Some(Observation::PodGone(pod.metadata.uid.unwrap_or_default())),
    };
    follow(Api::<Pod>::all(client), config, "pods", to, translate).await;
}

/// Watches all namespaces.
pub(crate) async fn namespaces(client: kube::Client, to: Observations) {
    let mut listed = BTreeMap::new();
    let parts = |namespace: Namespace| {
        let metadata = namespace.metadata;
        (
            metadata.name.unwrap_or_default(),
            metadata.labels.unwrap_or_default(),
        )
    };
    let translate = move |event| match event {
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(namespace) => {
            listed.extend([parts(namespace)]);
            None
        }
        Event::InitDone => Some(Observation::Namespaces(std::mem::take(&mut listed))),
        Event::Apply(namespace) => {
            let (name, labels) = parts(namespace);
            Some(Observation::Namespace(name, Some(labels)))
        }
        Event::Delete(namespace) => Some(Observation::Namespace(parts(namespace).0, None)),
    };
    let api = Api::<Namespace>::all(client);
    follow(api, Config::default(), "namespaces", to, translate).await;
}

/// Watches the mesh's configuration.
pub(crate) async fn mesh_config(client: kube::Client, to: Observations) {
    let config = Config::default().fields(&format!("metadata.name={MESH_CONFIG}"));
    let api = Api::<ConfigMap>::namespaced(client, MESH_NAMESPACE);
    let is_it = |map: &ConfigMap| map.metadata.name.as_deref() == Some(MESH_CONFIG);
    let mut listed = None;
    let translate = move |event| match event {
        Event::Init => {
            listed = None;
            None
        }
        Event::InitApply(map) => {
            if is_it(&map) {
                listed = Some(Box::new(map));
            }
            None
        }
        Event::InitDone => Some(Observation::MeshConfig(listed.take())),
        Event::Apply(map) => is_it(&map).then(|| Observation::MeshConfig(Some(Box::new(map)))),
        Event::Delete(map) => is_it(&map).then_some(Observation::MeshConfig(None)),
    };
    follow(api, config, "mesh configuration", to, translate).await;
}

async fn follow<K>(
    api: Api<K>,
    config: Config,
    what: &'static str,
    to: Observations,
    mut translate: impl FnMut(Event<K>) -> Option<Observation> + Send,
) where
    K: kube::Resource + Clone + Debug + Send + serde::de::DeserializeOwned + 'static,
{
    let mut events = std::pin::pin!(watch(api, config).default_backoff());
    let mut said = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                said = false;
                if let Some(observation) = translate(event)
                    && to.send(observation).await.is_err()
                {
                    return;
                }
            }
            Err(error) => complain(what, &error, &mut said),
        }
    }
}

fn complain(what: &'static str, error: &watcher::Error, said: &mut bool) {
    if !std::mem::replace(said, true) {
        tracing::warn!(what, %error, "the API server does not answer; deciding from what is known");
    }
}
