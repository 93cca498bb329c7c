//! Keeps what follows from Services and Pods: virtual addresses, EndpointSlices, the nodes' rules, the pods'
//! hosts files. One task; it always works from the whole state, so that nothing depends on order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::{Notify, watch as channel};

use super::{ServiceView, rules, slices, views};
use crate::mesh::{Mesh, Node};
use crate::{hosts, objects};

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(10);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the controller keeps.
pub(crate) struct Controller {
    mesh: Mesh,
    nodes: Vec<Node>,
    client: Client,
    written: BTreeMap<(String, String), serde_json::Value>,
    installed: Option<Vec<ServiceView>>,
    shown: channel::Sender<Vec<ServiceView>>,
}

impl Controller {
    /// A controller that has done nothing yet. What is in force is shown on `shown`.
    pub(crate) fn new(
        mesh: Mesh,
        nodes: Vec<Node>,
        client: Client,
        shown: channel::Sender<Vec<ServiceView>>,
    ) -> Self {
        Self {
            mesh,
            nodes,
            client,
            written: BTreeMap::new(),
            installed: None,
            shown,
        }
    }

    /// Keeps everything until dropped. `changed` wakes it without a change of an object.
    pub(crate) async fn run(mut self, changed: Arc<Notify>) {
        let (services, service_events) = watch::<Service>(self.client.clone());
        let (pods, pod_events) = watch::<Pod>(self.client.clone());
        let mut events = pin!(futures::stream::select(service_events, pod_events));
        loop {
            tokio::select! {
                event = events.next() => if event.is_none() { return },
                () = changed.notified() => {}
            }
            // Gathers what comes together: one pass for all of it.
            while let Ok(Some(())) = tokio::time::timeout(GATHER, events.next()).await {}
            if let Err(error) = self.pass(&services, &pods).await {
                tracing::warn!("services: {error:#}");
                tokio::time::sleep(RETRY).await;
                changed.notify_one();
            }
        }
    }

    async fn pass(&mut self, services: &Store<Service>, pods: &Store<Pod>) -> anyhow::Result<()> {
        let services: Vec<Service> = services.state().iter().map(|object| (**object).clone()).collect();
        let pods: Vec<Pod> = pods.state().iter().map(|object| (**object).clone()).collect();
        self.allocate(&services).await?;
        let views = views(&services, &pods);
        write_hosts(&self.mesh, &pods, &views)?;
        if self.installed.as_ref() != Some(&views) {
            for node in &self.nodes {
                rules::install(&self.mesh, *node, &views)
                    .await
                    .with_context(|| format!("service addresses on {}", node.name()))?;
            }
            self.write_slices(&views).await?;
            self.installed = Some(views.clone());
            self.shown.send_replace(views);
        }
        Ok(())
    }

    /// Gives virtual addresses to Services that have none, as an API server would.
    async fn allocate(&self, services: &[Service]) -> anyhow::Result<()> {
        let mut used: BTreeSet<String> = services
            .iter()
            .flat_map(|service| {
                service
                    .spec
                    .iter()
                    .flat_map(|spec| spec.cluster_ips.iter().flatten())
                    .cloned()
            })
            .collect();
        let without = services.iter().filter(|service| {
            service.spec.as_ref().is_some_and(|spec| {
                spec.cluster_ip.as_deref().unwrap_or_default().is_empty()
                    && spec.type_.as_deref() != Some("ExternalName")
            })
        });
        for service in without {
            let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else {
                continue;
            };
            let addresses = free_addresses(service, &mut used);
            let families: Vec<&str> = addresses
                .iter()
                .map(|address| if address.contains(':') { "IPv6" } else { "IPv4" })
                .collect();
            let patch = json!({ "spec": {
                "clusterIP": addresses.first(), "clusterIPs": addresses, "ipFamilies": families,
            }});
            let api = Api::<Service>::namespaced(self.client.clone(), namespace);
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        Ok(())
    }

    async fn write_slices(&mut self, views: &[ServiceView]) -> anyhow::Result<()> {
        let mut wanted = BTreeMap::new();
        for slice in views
            .iter()
            .map(slices)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
        {
            let key = (
                slice.metadata.namespace.clone().unwrap_or_default(),
                slice.metadata.name.clone().unwrap_or_default(),
            );
            wanted.insert(key, slice);
        }
        for (key, slice) in &wanted {
            let value = serde_json::to_value(slice)?;
            if self.written.get(key) != Some(&value) {
                self.write_slice(key, slice).await?;
                self.written.insert(key.clone(), value);
            }
        }
        let gone: Vec<_> = self
            .written
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            objects::delete(
                &Api::<EndpointSlice>::namespaced(self.client.clone(), &key.0),
                &key.1,
            )
            .await?;
            self.written.remove(&key);
        }
        Ok(())
    }

    async fn write_slice(&self, key: &(String, String), slice: &EndpointSlice) -> anyhow::Result<()> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &key.0);
        if objects::create(&api, slice).await? {
            return Ok(());
        }
        let held = api.get(&key.1).await?;
        let mut slice = slice.clone();
        slice.metadata.resource_version = held.metadata.resource_version;
        api.replace(&key.1, &PostParams::default(), &slice).await?;
        Ok(())
    }
}

/// A store of all objects of a kind, and a stream that ticks as it changes.
fn watch<K>(client: Client) -> (Store<K>, impl Stream<Item = ()>)
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
    // Errors are the API server's being away: the watcher comes again.
    (store, events.reflect(writer).map(|_| ()))
}

/// Addresses for a Service, of the families that it asks for.
fn free_addresses(service: &Service, used: &mut BTreeSet<String>) -> Vec<String> {
    let spec = service.spec.as_ref();
    let mut families: Vec<&str> = spec
        .iter()
        .flat_map(|spec| spec.ip_families.iter().flatten())
        .map(String::as_str)
        .collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    let policy = spec
        .and_then(|spec| spec.ip_family_policy.as_deref())
        .unwrap_or("SingleStack");
    if policy != "SingleStack" && families.len() == 1 {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" });
    }
    families
        .into_iter()
        .filter_map(|family| free_address(family == "IPv6", used))
        .collect()
}

fn free_address(v6: bool, used: &mut BTreeSet<String>) -> Option<String> {
    let free = (10..60_000_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            if v6 {
                Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number).to_string()
            } else {
                Ipv4Addr::new(10, 96, high, low).to_string()
            }
        })
        .find(|address| !used.contains(address))?;
    used.insert(free.clone());
    Some(free)
}

/// Writes the hosts files of the pods that have one here, in place: they are bound into the pods.
fn write_hosts(mesh: &Mesh, pods: &[Pod], views: &[ServiceView]) -> anyhow::Result<()> {
    for pod in pods {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else {
            continue;
        };
        let path = mesh.pod_directory(namespace, name).join("hosts");
        if !path.exists() {
            continue;
        }
        let addresses: Vec<String> = pod
            .status
            .iter()
            .flat_map(|status| status.pod_ips.iter().flatten())
            .map(|address| address.ip.clone())
            .collect();
        write_in_place(&path, &hosts::render(namespace, name, &addresses, views))?;
    }
    Ok(())
}

/// Replaces a file's content without replacing the file, and only where it differs.
pub(crate) fn write_in_place(path: &Path, content: &str) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        if std::fs::read_to_string(path).is_ok_and(|held| held == content) {
            return Ok(());
        }
        std::fs::write(path, content)
    };
    written().with_context(|| format!("writing {}", path.display()))
}
