//! The store: one writer at a time, readers that load a pointer. What a plane reads beyond L4 is taken by
//! consumers that the plane gives it: nothing here knows what they understand.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prost::Message;
use tokio::sync::watch;
use trefoil_api::names::MESH_SETTINGS;
use trefoil_api::policy::{self, Scope};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::security::{self, Authorization};
use trefoil_api::proto::istio::workload::{Address, address};
use trefoil_api::proto::trefoil::v1::MeshSettings;
use trefoil_api::proto::type_url;

use super::settings::{self, Said};
use super::{Malformed, Service, Snapshot, Workload, convert};

/// What is known, shared. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    current: ArcSwap<Snapshot>,
    writer: Mutex<()>,
    changes: watch::Sender<u64>,
    policies_answered: AtomicBool,
    addresses_answered: AtomicBool,
    /// The type under which policies are taken; none: that of planes that read no HTTP.
    policies: Option<&'static str>,
    extra: Vec<Extra>,
}

/// A type of a plane's own.
#[derive(Debug)]
struct Extra {
    type_url: &'static str,
    consumer: Arc<dyn Consumer>,
    answered: AtomicBool,
}

/// Takes the resources of a type that only some planes read.
pub trait Consumer: fmt::Debug + Send + Sync {
    /// Takes a response: what is understood takes effect at once and together; what is not is returned, and
    /// its last good version stays in force, as in [`Store::apply`]. One call at a time.
    fn apply(&self, response: &DeltaDiscoveryResponse) -> Vec<Refusal>;
}

/// A resource that was refused whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct Refusal {
    /// Name of the resource.
    pub name: String,
    /// The field and what is wrong with it.
    pub problem: String,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store of a plane that reads HTTP: policies come with what they ask of it, and each consumer
    /// takes a type of its own.
    #[must_use]
    pub fn reading_http(consumers: impl IntoIterator<Item = (&'static str, Arc<dyn Consumer>)>) -> Self {
        let extra = |(type_url, consumer)| Extra {
            type_url,
            consumer,
            answered: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(Shared {
                policies: Some(type_url::HTTP_AUTHORIZATION),
                extra: consumers.into_iter().map(extra).collect(),
                ..Shared::default()
            }),
        }
    }

    /// The types to subscribe to, in this order: nothing may be decided before policies are known. Control
    /// planes of other meshes never answer for the settings: nobody waits for them.
    #[must_use]
    pub fn types(&self) -> Vec<&'static str> {
        let extra = self.shared.extra.iter().map(|extra| extra.type_url);
        [self.policies_type(), type_url::MESH_SETTINGS]
            .into_iter()
            .chain(extra)
            .chain([type_url::ADDRESS])
            .collect()
    }

    fn policies_type(&self) -> &'static str {
        self.shared.policies.unwrap_or(type_url::AUTHORIZATION)
    }

    /// Takes a response: what is understood takes effect at once and together; what is not is returned, and
    /// its last good version stays in force.
    pub fn apply(&self, response: &DeltaDiscoveryResponse) -> Vec<Refusal> {
        let guard = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.shared.current.load());
        let (refusals, answered) = match response.type_url.as_str() {
            type_url::ADDRESS => (
                addresses(&mut next, response),
                Some(&self.shared.addresses_answered),
            ),
            url if url == self.policies_type() => (
                authorizations(&mut next, response),
                Some(&self.shared.policies_answered),
            ),
            type_url::MESH_SETTINGS => (mesh_settings(&mut next, response), None),
            other => match self.shared.extra.iter().find(|extra| extra.type_url == other) {
                Some(extra) => (extra.consumer.apply(response), Some(&extra.answered)),
                None => (vec![not_understood(other)], None),
            },
        };
        self.shared.current.store(Arc::new(next));
        if let Some(answered) = answered {
            answered.store(true, Ordering::Release);
        }
        drop(guard);
        self.shared.changes.send_modify(|count| *count += 1);
        refusals
    }

    /// One consistent view, for several questions in a row.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// See [`Snapshot::workload_at`].
    #[must_use]
    pub fn workload_at(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.shared.current.load().workload_at(address)
    }

    /// See [`Snapshot::workload`].
    #[must_use]
    pub fn workload(&self, uid: &str) -> Option<Arc<Workload>> {
        self.shared.current.load().workload(uid)
    }

    /// See [`Snapshot::service_at`].
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        self.shared.current.load().service_at(address)
    }

    /// See [`Snapshot::service_named`].
    #[must_use]
    pub fn service_named(&self, hostname: &str, namespace: &str) -> Option<Arc<Service>> {
        self.shared.current.load().service_named(hostname, namespace)
    }

    /// Sets whether only what is known may be reached whatever the mesh's settings say.
    pub fn set_registry_only(&self, always: bool) {
        let _guard = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.shared.current.load());
        next.always_registry_only = always;
        self.shared.current.store(Arc::new(next));
    }

    /// Ticks after each applied response.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Whether policies, workloads and what else this plane reads were answered at least once.
    #[must_use]
    pub fn synced(&self) -> bool {
        let extra = &self.shared.extra;
        self.policies_known()
            && self.shared.addresses_answered.load(Ordering::Acquire)
            && extra.iter().all(|extra| extra.answered.load(Ordering::Acquire))
    }

    /// Whether policies were answered: without, nothing can be decided.
    #[must_use]
    pub fn policies_known(&self) -> bool {
        self.shared.policies_answered.load(Ordering::Acquire)
    }

    /// Resolves once [`Self::synced`].
    pub async fn until_synced(&self) {
        let mut changes = self.changes();
        // The sender lives in `self`: it cannot be gone.
        let _ = changes.wait_for(|_| self.synced()).await;
    }
}

fn not_understood(type_url: &str) -> Refusal {
    Refusal {
        name: type_url.into(),
        problem: "not a type that is understood here".into(),
    }
}

/// The message of a resource, whose type is checked.
pub fn decode<M: Message + Default>(resource: &Resource, url: &str) -> Result<M, Malformed> {
    let any = resource
        .resource
        .as_ref()
        .ok_or_else(|| Malformed::new("resource", "is absent"))?;
    if any.type_url != url {
        return Err(Malformed::new("resource", format!("is a {:?}", any.type_url)));
    }
    M::decode(any.value.as_slice()).map_err(|error| Malformed::new("resource", error.to_string()))
}

/// Removal goes by the name, so a resource must have the name that its content says.
fn named(resource: &Resource, expected: &str) -> Result<(), Malformed> {
    if resource.name == expected {
        return Ok(());
    }
    Err(Malformed::new(
        "name",
        format!("is {:?}, its content says {expected:?}", resource.name),
    ))
}

fn addresses(next: &mut Snapshot, response: &DeltaDiscoveryResponse) -> Vec<Refusal> {
    for name in &response.removed_resources {
        // Workloads and services share one space of names.
        let _ = next.remove_workload(name) || next.remove_service(name);
        next.unread.remove(name);
    }
    let mut refusals = Vec::new();
    for resource in &response.resources {
        if let Err(malformed) = one_address(next, resource) {
            next.refuse(&resource.name, readable(resource));
            refusals.push(refusal(resource, &malformed));
        }
    }
    refusals
}

/// What can be read of the addresses of a resource that is refused.
fn readable(resource: &Resource) -> Vec<IpAddr> {
    let decoded = decode::<Address>(resource, type_url::ADDRESS).ok();
    let of = decoded.and_then(|address| address.r#type);
    of.as_ref().map(convert::readable_addresses).unwrap_or_default()
}

fn one_address(next: &mut Snapshot, resource: &Resource) -> Result<(), Malformed> {
    match decode::<Address>(resource, type_url::ADDRESS)?.r#type {
        Some(address::Type::Workload(workload)) => {
            let workload = convert::workload(&workload)?;
            named(resource, &workload.uid)?;
            next.insert_workload(workload);
        }
        Some(address::Type::Service(service)) => {
            let service = convert::service(&service)?;
            named(resource, &service.key())?;
            next.insert_service(service);
        }
        None => return Err(Malformed::new("type", "is absent or not known here")),
    }
    Ok(())
}

fn authorizations(next: &mut Snapshot, response: &DeltaDiscoveryResponse) -> Vec<Refusal> {
    for name in &response.removed_resources {
        next.policies.remove(name);
    }
    let mut refusals = Vec::new();
    for resource in &response.resources {
        let decoded = decode::<Authorization>(resource, &response.type_url);
        let scope = decoded.as_ref().ok().and_then(scope);
        let compiled = decoded
            .map_err(|malformed| malformed.to_string())
            .and_then(|message| policy::compile(&message).map_err(|error| error.to_string()));
        match compiled {
            Ok(policy) => next.policies.insert(&resource.name, policy),
            Err(problem) => {
                next.policies.refuse(&resource.name, scope);
                refusals.push(Refusal {
                    name: resource.name.clone(),
                    problem,
                });
            }
        }
    }
    refusals
}

fn mesh_settings(next: &mut Snapshot, response: &DeltaDiscoveryResponse) -> Vec<Refusal> {
    if response
        .removed_resources
        .iter()
        .any(|name| name == MESH_SETTINGS)
    {
        next.said = Said::Nothing;
    }
    let mut refusals = Vec::new();
    for resource in &response.resources {
        let read = named(resource, MESH_SETTINGS)
            .and_then(|()| decode::<MeshSettings>(resource, type_url::MESH_SETTINGS))
            .and_then(|message| settings::settings(&message));
        match read {
            Ok(settings) => next.said = Said::Settings(settings),
            Err(malformed) => {
                if resource.name == MESH_SETTINGS && next.said == Said::Nothing {
                    next.said = Said::Refused;
                }
                refusals.push(refusal(resource, &malformed));
            }
        }
    }
    refusals
}

/// The scope that a refused policy would have had, where that much can be read.
fn scope(message: &Authorization) -> Option<Scope> {
    match security::Scope::try_from(message.scope) {
        Ok(security::Scope::Global) => Some(Scope::Mesh),
        Ok(security::Scope::Namespace) => Some(Scope::Namespace),
        Ok(security::Scope::WorkloadSelector) => Some(Scope::Workload),
        Err(_) => None,
    }
}

fn refusal(resource: &Resource, malformed: &Malformed) -> Refusal {
    Refusal {
        name: resource.name.clone(),
        problem: malformed.to_string(),
    }
}
