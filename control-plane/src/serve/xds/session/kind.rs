//! One type of resources of one client.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::{Event, Names, TypeSummary};
use crate::serve::xds::Response;
use trefoil_control_plane_index::snapshot::{Encoded, ResourceKind, Resources, Version, Versions};

/// Bytes of resources in one response, but for a single resource that is larger.
const RESPONSE_BYTES: usize = 2 << 20;
/// The same of the first answer to a client that asks for everything. It takes that answer for all there is
/// and begins to serve by it, so that a part would let it treat the rest as strangers. Clients take 200 MiB.
const WHOLE_BYTES: usize = 192 << 20;

/// What a response was about.
#[derive(Debug)]
enum Sent {
    Names(Names),
    /// All that there was.
    All(Versions),
}

impl Sent {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::Names(names) => names.contains(name),
            Self::All(versions) => versions.contains_key(name),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        let (some, all) = match self {
            Self::Names(names) => (Some(names), None),
            Self::All(versions) => (None, Some(versions.keys())),
        };
        some.into_iter().flatten().chain(all.into_iter().flatten())
    }
}

#[derive(Debug)]
pub(super) struct KindState {
    kind: ResourceKind,
    subscribed: bool,
    wildcard: bool,
    /// Names and aliases that were asked for.
    names: BTreeSet<String>,
    /// What the client has, or is being sent. Shared with all others that hold the same.
    held: Versions,
    /// Names that may differ from what is held, up to the changes of `noted`; until everything was sent once,
    /// of what is wanted as a whole, none.
    pending: Names,
    /// The resources' generation.
    noted: u64,
    /// Names that were asked for and are to be answered even if there is nothing of that name.
    unanswered: BTreeSet<String>,
    /// The first response is due even if it is empty.
    first_due: bool,
    /// Everything may differ, and the next response has all of it.
    whole_due: bool,
    outstanding: Option<(String, Sent)>,
    /// Of responses that were refused: not known to be in force with the client.
    refused_names: Names,
    acknowledged: u64,
    refused: u64,
    refusal: Option<String>,
}

impl KindState {
    pub(super) fn new(kind: ResourceKind) -> Self {
        Self {
            kind,
            subscribed: false,
            wildcard: false,
            names: BTreeSet::new(),
            held: Versions::new(),
            pending: Names::new(),
            noted: 0,
            unanswered: BTreeSet::new(),
            first_due: false,
            whole_due: false,
            outstanding: None,
            refused_names: Names::new(),
            acknowledged: 0,
            refused: 0,
            refusal: None,
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    pub(super) fn has_pending(&self) -> bool {
        self.whole_due || !self.pending.is_empty()
    }

    pub(super) fn awaits_answer(&self) -> bool {
        self.outstanding.is_some()
    }

    /// About how many bytes the next response takes, if it has far more in it than responses usually have.
    pub(super) fn room(&self, resources: &Resources) -> Option<usize> {
        let due = self.subscribed && self.whole_due && self.outstanding.is_none();
        let large = resources.bytes() > RESPONSE_BYTES && self.held.len() < resources.len() / 2;
        (due && large).then(|| resources.bytes())
    }

    /// Whether something that exists is still to be sent.
    pub(super) fn has_more_to_send(&self, resources: &Resources) -> bool {
        let new = |one: DiffItem<'_, '_, _, _>| !matches!(one, DiffItem::Remove(..));
        (self.whole_due && self.held.diff(resources.versions()).any(new))
            || self.pending.iter().any(|name| {
                let resource = resources.get(name);
                resource.is_some_and(|resource| !self.holds(resource))
            })
    }

    fn holds(&self, resource: &Encoded) -> bool {
        self.held.get(&resource.name) == Some(&Some(resource.version))
    }

    pub(super) fn owes(&self, name: &str) -> bool {
        let outstanding = self
            .outstanding
            .as_ref()
            .is_some_and(|(_, names)| names.contains(name));
        self.subscribed
            && (self.whole_due
                || self.pending.contains(name)
                || outstanding
                || self.refused_names.contains(name))
    }

    /// Whether the request answers the outstanding response, and how.
    pub(super) fn answer(&mut self, request: &DeltaDiscoveryRequest) -> Option<Event> {
        let (_, names) = self
            .outstanding
            .take_if(|(nonce, _)| !request.response_nonce.is_empty() && *nonce == request.response_nonce)?;
        let Some(error) = &request.error_detail else {
            self.refused_names.retain(|name| !names.contains(name));
            self.acknowledged += 1;
            if self.refused_names.is_empty() {
                self.refusal = None;
            }
            return Some(Event::Acknowledged);
        };
        self.refused += 1;
        // "name: reason; name: reason": what is not named took effect.
        let refused = |name: &&Arc<str>| error.message.contains(name.as_ref());
        let named: Names = names.iter().filter(refused).cloned().collect();
        if named.is_empty() {
            self.refused_names.extend(names.iter().cloned());
        } else {
            self.refused_names.extend(named);
        }
        let message: String = error.message.chars().take(1024).collect();
        self.refusal = Some(message.clone());
        Some(Event::Refused(message))
    }

    pub(super) fn is_behind(&self) -> bool {
        let due = self.has_pending() || self.outstanding.is_some() || !self.refused_names.is_empty();
        self.subscribed && due
    }

    pub(super) fn subscribe(&mut self, request: DeltaDiscoveryRequest, resources: &Resources) {
        let first = !std::mem::replace(&mut self.subscribed, true);
        let subscribe = request.resource_names_subscribe;
        let unsubscribe = request.resource_names_unsubscribe;
        if first {
            self.first_due = true;
            self.held = held(&request.initial_resource_versions, resources);
        }
        let legacy_wildcard = first && subscribe.is_empty() && unsubscribe.is_empty();
        let was_wildcard = self.wildcard;
        self.wildcard |= legacy_wildcard || subscribe.iter().any(|name| name == "*");
        self.wildcard &= !unsubscribe.iter().any(|name| name == "*");
        for name in subscribe.into_iter().filter(|name| name != "*") {
            self.ask(name, resources, first);
        }
        let narrowed = !unsubscribe.is_empty();
        for name in unsubscribe {
            self.names.remove(&name);
            self.unanswered.remove(&name);
        }
        if self.wildcard && !was_wildcard {
            self.whole_due = true;
        } else if first {
            self.pending.extend(self.held.keys().cloned());
        } else if narrowed && !self.wildcard {
            // What was unsubscribed from is forgotten by both sides without a word.
            let unwanted = self.held.keys().filter(|name| !self.wants_name(name, resources));
            for name in unwanted.cloned().collect::<Names>() {
                self.held.remove(&name);
            }
        }
    }

    /// A name that is asked for is answered, even if what it means was sent before.
    fn ask(&mut self, name: String, resources: &Resources, first: bool) {
        for meant in resources.named(&name) {
            for member in resources.members(&meant) {
                self.pending.insert(member.clone());
            }
            if !first {
                self.held.remove(&meant);
            }
            self.pending.insert(meant);
        }
        self.unanswered.insert(name.clone());
        self.names.insert(name);
    }

    pub(super) fn changed(&mut self, names: &Names, generation: u64) {
        if self.subscribed {
            self.pending.extend(names.iter().cloned());
            self.noted = self.noted.max(generation);
        }
    }

    fn wants_name(&self, name: &str, resources: &Resources) -> bool {
        resources.get(name).is_some_and(|one| self.wants(one, resources))
    }

    fn wants(&self, resource: &Encoded, resources: &Resources) -> bool {
        let asked = |one: &Encoded| {
            self.names.contains(one.name.as_ref())
                || one.aliases.iter().any(|alias| self.names.contains(alias))
        };
        self.wildcard
            || asked(resource)
            || resource.services.iter().any(|service| {
                self.names.contains(service) || resources.get(service).is_some_and(|service| asked(service))
            })
    }

    /// The next response, if one is due.
    pub(super) fn send(
        &mut self,
        nonce: String,
        resources: &Resources,
        keep_removals: bool,
    ) -> Option<Response> {
        if !self.subscribed || self.outstanding.is_some() {
            return None;
        }
        if self.is_all_due(resources) {
            return Some(self.send_all(nonce, resources));
        }
        let mut response = Response {
            kind: self.kind,
            nonce: nonce.clone(),
            resources: Vec::new(),
            removed: Vec::new(),
        };
        let limit = if std::mem::take(&mut self.whole_due) {
            self.everything_differs(resources);
            WHOLE_BYTES
        } else {
            RESPONSE_BYTES
        };
        let mut bytes = 0;
        let mut kept = Names::new();
        while let Some(name) = self.pending.pop_first() {
            match resources.get(&name).filter(|one| self.wants(one, resources)) {
                Some(resource) if self.holds(resource) => {}
                Some(resource) => {
                    if bytes > 0 && bytes + resource.wire.len() > limit {
                        self.pending.insert(name);
                        break;
                    }
                    bytes += resource.wire.len();
                    if !self.wildcard && !self.held.contains_key(&name) {
                        // A service that appears brings its workloads along.
                        self.pending.extend(resources.members(&name).cloned());
                    }
                    self.held.insert(name, Some(resource.version));
                    response.resources.push(resource.clone());
                }
                None if !self.held.contains_key(&name) => {}
                None if keep_removals => {
                    kept.insert(name);
                }
                None => {
                    self.held.remove(&name);
                    response.removed.push(name.to_string());
                }
            }
        }
        self.pending.extend(kept);
        if self.wildcard && self.pending.is_empty() && self.noted == resources.generation() {
            // The same, but shared.
            self.held = resources.versions().clone();
        }
        let absent = std::mem::take(&mut self.unanswered)
            .into_iter()
            .filter(|name| resources.named(name).next().is_none());
        response.removed.extend(absent);
        let first = std::mem::take(&mut self.first_due);
        if !first && response.resources.is_empty() && response.removed.is_empty() {
            return None;
        }
        let sent = response.resources.iter().map(|one| one.name.clone());
        let removed = response.removed.iter().map(|name| name.as_str().into());
        self.outstanding = Some((nonce, Sent::Names(sent.chain(removed).collect())));
        Some(response)
    }

    /// Whether the client holds nothing, and is to have everything.
    fn is_all_due(&self, resources: &Resources) -> bool {
        let whole = self.wildcard && self.whole_due && resources.bytes() <= WHOLE_BYTES;
        whole && self.held.is_empty() && self.unanswered.is_empty()
    }

    /// Everything, without a look at each.
    fn send_all(&mut self, nonce: String, resources: &Resources) -> Response {
        self.whole_due = false;
        self.first_due = false;
        self.pending.clear();
        self.noted = self.noted.max(resources.generation());
        self.held = resources.versions().clone();
        self.outstanding = Some((nonce.clone(), Sent::All(self.held.clone())));
        Response {
            kind: self.kind,
            nonce,
            resources: resources.iter().cloned().collect(),
            removed: Vec::new(),
        }
    }

    /// Says name by name what the client does not hold as it is, and what it holds that is no more.
    fn everything_differs(&mut self, resources: &Resources) {
        let differing = self.held.diff(resources.versions()).map(|one| match one {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name.clone(),
            DiffItem::Update { new: (name, _), .. } => name.clone(),
        });
        self.pending.extend(differing);
        self.noted = self.noted.max(resources.generation());
    }

    pub(super) fn summary(&self) -> TypeSummary {
        TypeSummary {
            type_url: self.kind.type_url(),
            wildcard: self.wildcard,
            names: self.names.len(),
            held: self.held.len(),
            pending: self.pending.len(),
            outstanding: self.outstanding.is_some(),
            acknowledged: self.acknowledged,
            refused: self.refused,
            refusal: self.refusal.clone(),
        }
    }
}

/// What a client says that it holds, as what there is with what differs of it: few clients hold anything else.
fn held(given: &HashMap<String, String>, resources: &Resources) -> Versions {
    if given.len() < resources.len() / 2 {
        let given = given.iter();
        return given
            .map(|(name, version)| (Arc::from(name.as_str()), Version::read(version)))
            .collect();
    }
    let mut held = resources.versions().clone();
    for (name, version) in given {
        let version = Version::read(version);
        if held.get(name.as_str()) != Some(&version) {
            held.insert(name.as_str().into(), version);
        }
    }
    if held.len() > given.len() {
        let missed = held.keys().filter(|name| !given.contains_key(name.as_ref()));
        for name in missed.cloned().collect::<Names>() {
            held.remove(&name);
        }
    }
    held
}
