//! The resources that are served: each encoded once, for all clients. Cloning a snapshot is cheap.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use prost::Message;
use trefoil_api::proto::envoy::service::discovery::v3::Resource;

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// Policies; before workloads, which name them.
    Authorization,
    /// The same policies, with what they ask of HTTP.
    HttpAuthorization,
    /// Routes.
    HttpRoute,
    /// The mesh-wide settings.
    MeshSettings,
    /// Workloads and services.
    Address,
}

impl ResourceKind {
    /// All of them, in the order in which they are to be sent.
    pub const ALL: [Self; 5] = [
        Self::Authorization,
        Self::HttpAuthorization,
        Self::HttpRoute,
        Self::MeshSettings,
        Self::Address,
    ];
    /// Those that workloads name, of which a client asks for one.
    pub const POLICIES: [Self; 2] = [Self::Authorization, Self::HttpAuthorization];

    /// The xDS type.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        use trefoil_api::proto::type_url;
        match self {
            Self::Authorization => type_url::AUTHORIZATION,
            Self::HttpAuthorization => type_url::HTTP_AUTHORIZATION,
            Self::HttpRoute => type_url::HTTP_ROUTE,
            Self::MeshSettings => type_url::MESH_SETTINGS,
            Self::Address => type_url::ADDRESS,
        }
    }

    /// In metrics and the admin interface.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::HttpAuthorization => "http_authorization",
            Self::HttpRoute => "http_route",
            Self::MeshSettings => "mesh_settings",
            Self::Address => "address",
        }
    }

    /// The kind of an xDS type.
    #[must_use]
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// A hash of a resource's content: the same in every replica and after every restart. On the wire it is 16
/// hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// From the wire; none if it is not one of ours.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let ours = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = ours.then(|| u64::from_str_radix(text, 16).ok())?;
        number.map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Versions by name, as a client holds them; of some it is known only that it holds one. Cloning is cheap, and
/// clones share what they have in common: a thousand clients that hold the same cost little more than one.
pub type Versions = OrdMap<Arc<str>, Option<Version>>;

/// A resource, encoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its xDS name.
    pub name: Arc<str>,
    /// Of its content.
    pub version: Version,
    /// Other names that it can be asked for by.
    pub aliases: Vec<String>,
    /// Names of the services that it serves, if it is a workload.
    pub services: Vec<String>,
    /// The whole `Resource` message.
    pub wire: Bytes,
}

impl Encoded {
    /// Encodes a resource whose content is `value`.
    #[must_use]
    pub fn new(
        kind: ResourceKind,
        name: &str,
        aliases: Vec<String>,
        services: Vec<String>,
        value: Vec<u8>,
    ) -> Self {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in aliases.iter().map(String::as_bytes).chain([value.as_slice()]) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finish();
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        let version = Version(u64::from_be_bytes(first));
        let message = Resource {
            version: version.to_string(),
            resource: Some(prost_types::Any {
                type_url: kind.type_url().into(),
                value,
            }),
            name: name.into(),
            aliases: aliases.clone(),
            ..Resource::default()
        };
        Self {
            name: name.into(),
            version,
            aliases,
            services,
            wire: message.encode_to_vec().into(),
        }
    }

    /// Decodes the content.
    pub fn decode<M: Message + Default>(&self) -> Result<M, prost::DecodeError> {
        let resource = Resource::decode(self.wire.clone())?;
        M::decode(resource.resource.unwrap_or_default().value.as_slice())
    }
}

/// The resources of one kind.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    by_name: OrdMap<Arc<str>, Arc<Encoded>>,
    /// The same, for clients that hold all of them.
    versions: Versions,
    /// Bytes of all of them.
    bytes: usize,
    /// How often something changed.
    generation: u64,
    by_alias: OrdMap<String, OrdSet<Arc<str>>>,
    members: OrdMap<String, OrdSet<Arc<str>>>,
}

impl Resources {
    /// By name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Encoded>> {
        self.by_name.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.by_name.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The versions of all of them.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Bytes that all of them take, encoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows with every change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Names of the workloads that serve a service.
    pub fn members(&self, service: &str) -> impl Iterator<Item = &Arc<str>> {
        self.members.get(service).into_iter().flatten()
    }

    /// Names of the resources that a name or an alias means.
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = Arc<str>> + use<'a> {
        let own = self.by_name.get(name).map(|encoded| encoded.name.clone());
        own.into_iter()
            .chain(self.by_alias.get(name).into_iter().flatten().cloned())
    }

    /// Puts a resource in place, or removes it; whether anything differs now.
    fn set(&mut self, name: &str, resource: Option<Encoded>) -> Option<Arc<str>> {
        let old = self.by_name.get(name).cloned();
        if old.as_deref().map(|old| &old.version) == resource.as_ref().map(|new| &new.version) {
            return None;
        }
        self.generation += 1;
        if let Some(old) = old {
            self.bytes -= old.wire.len();
            for alias in &old.aliases {
                forget(&mut self.by_alias, alias, &old.name);
            }
            for service in &old.services {
                forget(&mut self.members, service, &old.name);
            }
            self.by_name.remove(name);
        }
        let Some(new) = resource else {
            self.versions.remove(name);
            return Some(name.into());
        };
        let new = Arc::new(new);
        self.bytes += new.wire.len();
        self.versions.insert(new.name.clone(), Some(new.version));
        for alias in &new.aliases {
            self.by_alias
                .entry(alias.clone())
                .or_default()
                .insert(new.name.clone());
        }
        for service in &new.services {
            self.members
                .entry(service.clone())
                .or_default()
                .insert(new.name.clone());
        }
        self.by_name.insert(new.name.clone(), new.clone());
        Some(new.name.clone())
    }
}

fn forget(sets: &mut OrdMap<String, OrdSet<Arc<str>>>, at: &str, name: &Arc<str>) {
    let empty = sets.get_mut(at).is_some_and(|set| {
        set.remove(name);
        set.is_empty()
    });
    if empty {
        sets.remove(at);
    }
}

/// Names of resources that differ, or are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the order of [`ResourceKind::ALL`].
    kinds: [BTreeSet<Arc<str>>; ResourceKind::ALL.len()],
    /// In the same order: resources that were encoded to find out.
    encoded: [usize; ResourceKind::ALL.len()],
}

impl Changes {
    /// Of one kind.
    #[must_use]
    pub fn of(&self, kind: ResourceKind) -> &BTreeSet<Arc<str>> {
        &self.kinds[kind as usize]
    }

    /// How many resources of a kind were encoded, whether or not they differ.
    #[must_use]
    pub fn encoded(&self, kind: ResourceKind) -> usize {
        self.encoded[kind as usize]
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.iter().all(BTreeSet::is_empty)
    }
}

/// All that is served, and what the certificate authority asks about.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order of [`ResourceKind::ALL`].
    kinds: [Resources; ResourceKind::ALL.len()],
    /// (node, namespace, service account) of the pods that may be acted for, with the pods' names.
    accounts: OrdMap<(String, String, String), OrdSet<String>>,
    /// Each pod's part of `accounts`.
    account_of: OrdMap<(String, String), (String, String, String)>,
    /// (namespace, service account) of the waypoints.
    waypoints: OrdSet<(String, String)>,
}

impl Snapshot {
    /// The resources of one kind.
    #[must_use]
    pub fn of(&self, kind: ResourceKind) -> &Resources {
        &self.kinds[kind as usize]
    }

    /// Whether a service account is a waypoint's, and nobody else's to use.
    #[must_use]
    pub fn is_reserved(&self, namespace: &str, service_account: &str) -> bool {
        let account = (namespace.to_owned(), service_account.to_owned());
        self.waypoints.contains(&account)
    }

    /// Says whether a service account is a waypoint's.
    pub(super) fn reserve(&mut self, namespace: &str, service_account: &str, reserved: bool) {
        let account = (namespace.to_owned(), service_account.to_owned());
        if reserved {
            self.waypoints.insert(account);
        } else {
            self.waypoints.remove(&account);
        }
    }

    /// Whether a pod of this service account runs on this node, and may be acted for by its proxy.
    #[must_use]
    pub fn runs(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let key = (node.to_owned(), namespace.to_owned(), service_account.to_owned());
        self.accounts.contains_key(&key)
    }

    /// Serves a resource from now on, or no longer, and notes what changed by that.
    pub fn set(&mut self, changes: &mut Changes, kind: ResourceKind, name: &str, resource: Option<Encoded>) {
        changes.encoded[kind as usize] += usize::from(resource.is_some());
        let changed = self.kinds[kind as usize].set(name, resource);
        changes.kinds[kind as usize].extend(changed);
    }

    /// Says on which node, and under which account, a pod runs.
    pub(super) fn set_account(&mut self, namespace: &str, pod: &str, place: Option<(&str, &str)>) {
        let key = (namespace.to_owned(), pod.to_owned());
        if let Some(old) = self.account_of.remove(&key) {
            let empty = self.accounts.get_mut(&old).is_some_and(|pods| {
                pods.remove(pod);
                pods.is_empty()
            });
            if empty {
                self.accounts.remove(&old);
            }
        }
        if let Some((node, account)) = place {
            let place = (node.to_owned(), namespace.to_owned(), account.to_owned());
            self.accounts
                .entry(place.clone())
                .or_default()
                .insert(pod.to_owned());
            self.account_of.insert(key, place);
        }
    }
}
