//! One watch for each kind of object, reduced to what the index looks at before it is kept.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trefoil_api::crd::{AuthorizationPolicy, PeerAuthentication, PolicyStatus};
use trefoil_api::names::{MESH_CONFIG, MESH_CONFIG_KEY, MESH_NAMESPACE};
use trefoil_api::routes::GATEWAY_GROUP;

use super::Event;
use trefoil_control_plane_index::facts::{self, PolicyObject};
use trefoil_control_plane_index::{Change, Kind, ObjectKey, RouteKind};

pub(super) fn start(client: &Client, events: &mpsc::Sender<Event>, stop: &CancellationToken) {
    let all = Watches { client, events, stop };
    all.typed::<Namespace>(Kind::Namespace, |key, object| {
        Change::Namespace(key.name, object.as_ref().map(Into::into))
    });
    all.typed::<Node>(Kind::Node, |key, object| {
        Change::Node(key.name, object.as_ref().map(Into::into))
    });
    all.typed::<Pod>(Kind::Pod, |key, object| {
        Change::Pod(key, object.as_ref().map(Into::into))
    });
    all.typed::<Service>(Kind::Service, |key, object| {
        // An ExternalName is an alias in DNS, not a service.
        let external = |one: &&Service| {
            let kind = one.spec.as_ref().and_then(|spec| spec.type_.as_deref());
            kind != Some("ExternalName")
        };
        Change::Service(key, object.as_ref().filter(external).map(Into::into))
    });
    all.typed::<EndpointSlice>(Kind::Slice, |key, object| {
        Change::Slice(key, object.as_ref().map(Into::into))
    });
    // Read as they are: one that is malformed must not hide the others.
    all.read::<NetworkPolicy>(Kind::NetworkPolicy, |key, object| {
        let read = |object: DynamicObject| facts::NetworkPolicy::read(&key.namespace, &object.data["spec"]);
        let facts = object.map(read);
        Change::NetworkPolicy(key, facts)
    });
    all.policies::<AuthorizationPolicy>(Kind::Authorization, Change::Authorization);
    all.policies::<PeerAuthentication>(Kind::PeerAuthentication, Change::PeerAuthentication);
    all.gateways("v1", "Gateway", Kind::Gateway, |key, object| {
        // One whose pods are being removed before it is not there for its clients any more.
        let stays = |object: &&DynamicObject| object.metadata.deletion_timestamp.is_none();
        Change::Gateway(key, object.filter(stays).map(Into::into))
    });
    all.gateways("v1", "GatewayClass", Kind::GatewayClass, |key, object| {
        Change::GatewayClass(key.name, object.map(Into::into))
    });
    all.gateways("v1", "HTTPRoute", Kind::HttpRoute, |key, object| {
        Change::Route(RouteKind::Http, key, object.map(Into::into))
    });
    all.gateways("v1", "GRPCRoute", Kind::GrpcRoute, |key, object| {
        Change::Route(RouteKind::Grpc, key, object.map(Into::into))
    });
    all.gateways(
        "v1beta1",
        "ReferenceGrant",
        Kind::ReferenceGrant,
        |key, object| Change::ReferenceGrant(key, object.map(Into::into)),
    );
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), MESH_NAMESPACE);
    all.watch(maps, Kind::MeshConfig, |object, present| {
        (object.name_any() == MESH_CONFIG).then(|| {
            let text = present.then(|| {
                let data = object.data.as_ref();
                let text = data.and_then(|data| data.get(MESH_CONFIG_KEY));
                text.cloned().unwrap_or_default()
            });
            (ObjectKey::default(), Change::MeshConfig(text))
        })
    });
}

/// How often a kind is looked for that is not there.
const LOOK: Duration = Duration::from_secs(15);

/// The same where it has to be there, or is not known to be absent.
const SOON: Duration = Duration::from_secs(2);

struct Watches<'a> {
    client: &'a Client,
    events: &'a mpsc::Sender<Event>,
    stop: &'a CancellationToken,
}

fn key_of(object: &impl Resource) -> ObjectKey {
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    ObjectKey::new(namespace, object.name_any())
}

impl Watches<'_> {
    fn typed<K>(&self, kind: Kind, change: fn(ObjectKey, Option<K>) -> Change)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        self.watch(api, kind, move |object, present| {
            let key = key_of(&object);
            Some((key.clone(), change(key, present.then_some(object))))
        });
    }

    fn policies<K>(&self, kind: Kind, change: fn(ObjectKey, Option<PolicyObject>) -> Change)
    where
        K: Resource<DynamicType = ()>,
    {
        self.read::<K>(kind, move |key, object| change(key, object.map(policy)));
    }

    /// Objects of a kind that the index reads.
    fn read<K>(
        &self,
        kind: Kind,
        change: impl Fn(ObjectKey, Option<DynamicObject>) -> Change + Send + Sync + 'static,
    ) where
        K: Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        self.watch(api, kind, move |object, present| {
            let key = key_of(&object);
            Some((key.clone(), change(key, present.then_some(object))))
        });
    }

    /// Objects of the Gateway API, which a cluster may not have, or not yet: those are looked for, and not listed
    /// in vain.
    fn gateways(
        &self,
        version: &str,
        name: &str,
        kind: Kind,
        change: fn(ObjectKey, Option<&DynamicObject>) -> Change,
    ) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GATEWAY_GROUP, version, name));
        let (client, events) = (self.client.clone(), self.events.clone());
        let change = move |object: DynamicObject, present: bool| {
            let key = key_of(&object);
            Some((key.clone(), change(key, present.then_some(&object))))
        };
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let mut absent = false;
            loop {
                let mut pause = LOOK;
                match is_served(&client, &resource).await {
                    Ok(true) => {
                        absent = false;
                        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
                        if follow(api, kind, &change, &events).await == End::NobodyListens {
                            return;
                        }
                    }
                    Ok(false) if !absent => {
                        absent = true;
                        tracing::info!(?kind, "not a kind of this cluster yet");
                        let none = Event::Listed(kind, Vec::new(), BTreeSet::new());
                        if events.send(none).await.is_err() {
                            return;
                        }
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(?kind, %error, "the API does not say whether it has the kind");
                        pause = SOON;
                    }
                }
                tokio::time::sleep(pause).await;
            }
        }));
    }

    fn watch<K>(
        &self,
        api: Api<K>,
        kind: Kind,
        change: impl Fn(K, bool) -> Option<(ObjectKey, Change)> + Send + Sync + 'static,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (events, stop) = (self.events.clone(), self.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            while follow(api.clone(), kind, &change, &events).await != End::NobodyListens {
                tracing::warn!(?kind, "not a kind of this cluster: apply the mesh's definitions");
                tokio::time::sleep(SOON).await;
            }
        }));
    }
}

/// Why a watch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The kind is none of the cluster.
    Absent,
    /// Whom it is told has ended.
    NobodyListens,
}

/// Whether the API has a kind.
async fn is_served(client: &Client, resource: &ApiResource) -> Result<bool, kube::Error> {
    let groups = client.list_api_groups().await?.groups;
    let mut versions = groups.iter().flat_map(|group| &group.versions);
    if !versions.any(|version| version.group_version == resource.api_version) {
        return Ok(false);
    }
    let kinds = client.list_api_group_resources(&resource.api_version).await?;
    Ok(kinds.resources.iter().any(|kind| kind.name == resource.plural))
}

/// Tells what a kind's objects are and become.
async fn follow<K>(
    api: Api<K>,
    kind: Kind,
    change: &(impl Fn(K, bool) -> Option<(ObjectKey, Change)> + Sync),
    events: &mpsc::Sender<Event>,
) -> End
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut stream = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut listing: (Vec<Change>, BTreeSet<ObjectKey>) = Default::default();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => {
                listing = Default::default();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                if let Some((key, change)) = change(object, true) {
                    listing.0.push(change);
                    listing.1.insert(key);
                }
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                let (changes, keys) = std::mem::take(&mut listing);
                Event::Listed(kind, changes, keys)
            }
            Ok(watcher::Event::Apply(object)) => match change(object, true) {
                Some((_, change)) => Event::Changes(vec![change], None),
                None => continue,
            },
            Ok(watcher::Event::Delete(object)) => match change(object, false) {
                Some((_, change)) => Event::Changes(vec![change], None),
                None => continue,
            },
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                return End::Absent;
            }
            Err(error) => {
                tracing::warn!(?kind, %error, "watch interrupted");
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return End::NobodyListens;
        }
    }
    End::NobodyListens
}

fn policy(object: DynamicObject) -> PolicyObject {
    let created = object.metadata.creation_timestamp.as_ref();
    let status = object.data.get("status").cloned().unwrap_or_default();
    let status: PolicyStatus = serde_json::from_value(status).unwrap_or_default();
    let mut only_spec = serde_json::Map::new();
    if let Some(spec) = object.data.get("spec") {
        only_spec.insert("spec".into(), spec.clone());
    }
    PolicyObject {
        generation: object.metadata.generation.unwrap_or_default(),
        created: created.map(|time| time.0.to_string()).unwrap_or_default(),
        conditions: status.conditions,
        object: only_spec.into(),
    }
}
