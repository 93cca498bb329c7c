//! Makes the pods of waypoints on this machine, as a deployer would in a cluster: for every Gateway of their
//! class a service account, a Service and as many pods as it asks for. It always works from all Gateways, so
//! that nothing depends on order.

mod plan;
mod replica;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use trefoil_api::names::{label, port};

use super::daemon::Daemon;
use super::objects;
use plan::{Name, Plan, Wanted};
use replica::Replica;

/// How soon something that failed is tried again, and how often it is looked whether all pods are there.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps the waypoints' pods until the daemon ends.
pub(crate) async fn keep(daemon: Arc<Daemon>) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    let kind = ApiResource::from_gvk_with_plural(&kind, "gateways");
    let api = Api::all_with(daemon.client.clone(), &kind);
    let writer = Writer::new(kind);
    let store = writer.as_reader();
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = pin!(events.reflect(writer));
    // Pods are made from whole lists only: one that is missing from half a list would be ended.
    let mut listed = false;
    let mut keeper = Keeper {
        daemon: daemon.clone(),
        replicas: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return Ok(()),
                Some(Ok(watcher::Event::InitDone)) => listed = true,
                // Errors are the API server's being away: the watcher comes again.
                Some(_) => {}
            },
            () = tokio::time::sleep(LOOK) => {}
            () = daemon.stop.cancelled() => return Ok(()),
        }
        if listed {
            keeper.pass(&store).await;
        }
    }
}

struct Keeper {
    daemon: Arc<Daemon>,
    /// By Gateway, then by number.
    replicas: BTreeMap<Name, BTreeMap<u32, Replica>>,
}

impl Keeper {
    async fn pass(&mut self, store: &Store<DynamicObject>) {
        let wanted = plan::wanted(store.state().iter().map(AsRef::as_ref));
        for of_gateway in self.replicas.values_mut() {
            // Ended by others, or by itself: made again below if it is still wanted.
            of_gateway.retain(|_, replica| !replica.is_gone());
        }
        let have = self.replicas.iter().map(|(name, replicas)| {
            let numbers = replicas
                .iter()
                .map(|(number, replica)| (*number, replica.is_leaving()));
            (name.clone(), numbers.collect())
        });
        let Plan { make, leave, remove } = Plan::between(&wanted, &have.collect());
        for (name, number) in leave {
            if let Some(replica) = self.replicas.get(&name).and_then(|all| all.get(&number)) {
                replica.leave();
            }
        }
        for name in remove {
            self.replicas.remove(&name);
            if let Err(error) = remove_objects(&self.daemon, &name).await {
                tracing::warn!("removing waypoint {}/{}: {error:#}", name.0, name.1);
            }
        }
        for (name, number) in make {
            if let Err(error) = self.make(&name, number, &wanted).await {
                tracing::warn!("waypoint {}/{}: {error:#}", name.0, name.1);
            }
        }
    }

    async fn make(&mut self, name: &Name, number: u32, wanted: &Wanted) -> anyhow::Result<()> {
        anyhow::ensure!(wanted.contains_key(name), "it is not wanted any more");
        make_objects(&self.daemon, name).await?;
        let of_gateway = self.replicas.entry(name.clone()).or_default();
        // Away from those that are there already, while there are nodes for that.
        let taken: Vec<u8> = of_gateway.values().map(Replica::node).collect();
        let node = plan::spread(&self.daemon.nodes, &taken);
        let replica = replica::start(&self.daemon, name, number, node).await?;
        of_gateway.insert(number, replica);
        Ok(())
    }
}

/// The service account and the Service of a waypoint.
async fn make_objects(daemon: &Daemon, (namespace, name): &Name) -> anyhow::Result<()> {
    let labels = json!({ label::GATEWAY_NAME: name });
    let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
    let accounts = Api::<ServiceAccount>::namespaced(daemon.client.clone(), namespace);
    let account = serde_json::from_value(json!({ "metadata": metadata }))?;
    if !objects::create(&accounts, &account).await? {
        // Reserved from now on.
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        accounts.patch(name, &PatchParams::default(), &patch).await?;
    }
    let services = Api::<Service>::namespaced(daemon.client.clone(), namespace);
    let service: Service = serde_json::from_value(json!({
        "metadata": metadata,
        "spec": {
            "selector": labels,
            "ports": [{ "name": "mesh", "port": port::HBONE, "targetPort": port::HBONE, "protocol": "TCP" }],
        },
    }))?;
    if !objects::create(&services, &service).await? {
        let held = services.get(name).await?;
        anyhow::ensure!(
            held.metadata
                .labels
                .is_some_and(|held| held.get(label::GATEWAY_NAME) == Some(name)),
            "Service {namespace}/{name} exists and is not the waypoint's: name the waypoint otherwise"
        );
    }
    Ok(())
}

/// Removes what was made for a waypoint, and nothing else of that name.
async fn remove_objects(daemon: &Daemon, (namespace, name): &Name) -> anyhow::Result<()> {
    let ours = |labels: Option<BTreeMap<String, String>>| {
        labels.is_some_and(|labels| labels.get(label::GATEWAY_NAME) == Some(name))
    };
    let services = Api::<Service>::namespaced(daemon.client.clone(), namespace);
    if let Some(service) = services.get_opt(name).await?
        && ours(service.metadata.labels)
    {
        objects::delete(&services, name).await?;
    }
    let accounts = Api::<ServiceAccount>::namespaced(daemon.client.clone(), namespace);
    if let Some(account) = accounts.get_opt(name).await?
        && ours(account.metadata.labels)
    {
        objects::delete(&accounts, name).await?;
    }
    Ok(())
}
