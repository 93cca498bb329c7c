//! What the control plane sent and was accepted, and what each worker has yet to be told of it. A worker
//! that is slow costs a set of names, never a queue: what it is told is read when it is ready to hear it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::type_url;

#[cfg(test)]
mod tests;

/// The types that workers are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Type {
    Authorization,
    MeshSettings,
    Address,
}

const TYPES: [Type; 3] = [Type::Authorization, Type::MeshSettings, Type::Address];
/// What nothing can be decided without. Control planes of other meshes never speak of settings.
const AWAITED: [Type; 2] = [Type::Authorization, Type::Address];

/// What workers are told, in the order in which they are: a workload may name a policy, so a policy is there
/// before the workloads that name it, and goes after those that named it. Settings hold before anything is
/// dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Policies,
    Settings,
    Addresses,
    PolicyRemovals,
}

impl Turn {
    fn kind(self) -> Type {
        match self {
            Self::Policies | Self::PolicyRemovals => Type::Authorization,
            Self::Settings => Type::MeshSettings,
            Self::Addresses => Type::Address,
        }
    }

    /// Whether it is the turn of resources that are held, and of those that are not.
    fn tells(self, held: bool) -> bool {
        match self {
            Self::Policies => held,
            Self::Settings | Self::Addresses => true,
            Self::PolicyRemovals => !held,
        }
    }
}

impl Type {
    fn of(url: &str) -> Option<Self> {
        TYPES.into_iter().find(|kind| kind.url() == url)
    }

    /// When what there is of it is told.
    fn turn(self) -> Turn {
        match self {
            Self::Authorization => Turn::Policies,
            Self::MeshSettings => Turn::Settings,
            Self::Address => Turn::Addresses,
        }
    }

    fn url(self) -> &'static str {
        match self {
            Self::Authorization => type_url::AUTHORIZATION,
            Self::MeshSettings => type_url::MESH_SETTINGS,
            Self::Address => type_url::ADDRESS,
        }
    }
}

/// All resources that are in force.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<(Type, String), Arc<Resource>>,
    answered: BTreeSet<Type>,
    followers: Vec<Weak<Pending>>,
}

/// What one worker has yet to be told.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    names: Mutex<Names>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Names {
    changed: BTreeSet<(Type, String)>,
    /// Turns to be taken even where nothing changed: an empty answer is one too.
    turns: BTreeSet<Turn>,
}

impl Resources {
    /// Takes a response as `Held` leaves it: what was refused is in it only where there is no last good
    /// version, and closes in the workers what it would have guarded.
    pub(crate) fn accept(&self, response: &DeltaDiscoveryResponse) {
        let Some(kind) = Type::of(&response.type_url) else {
            return;
        };
        let mut state = self.lock();
        let first = state.answered.insert(kind);
        let mut changed = BTreeSet::new();
        for name in &response.removed_resources {
            let key = (kind, name.clone());
            state.held.remove(&key);
            changed.insert(key);
        }
        for resource in &response.resources {
            let key = (kind, resource.name.clone());
            state.held.insert(key.clone(), Arc::new(resource.clone()));
            changed.insert(key);
        }
        if changed.is_empty() && !first {
            return;
        }
        let removals = Some(Turn::PolicyRemovals)
            .filter(|turn| turn.kind() == kind && !response.removed_resources.is_empty());
        state.followers.retain(|follower| follower.strong_count() > 0);
        for follower in state.followers.iter().filter_map(Weak::upgrade) {
            let mut names = follower.lock();
            names.changed.extend(changed.iter().cloned());
            names.turns.insert(kind.turn());
            names.turns.extend(removals);
            drop(names);
            follower.changed.notify_one();
        }
    }

    /// A new follower, to whom everything is yet to be told.
    #[must_use]
    pub(crate) fn follow(&self) -> Arc<Pending> {
        let mut state = self.lock();
        let pending = Arc::new(Pending::default());
        *pending.lock() = Names {
            changed: state.held.keys().cloned().collect(),
            turns: state.answered.iter().map(|kind| kind.turn()).collect(),
        };
        pending.changed.notify_one();
        state.followers.push(Arc::downgrade(&pending));
        pending
    }

    /// What a follower is to be told next: all that is pending of one turn, as it is now.
    pub(crate) fn next(&self, pending: &Pending) -> Option<DeltaDiscoveryResponse> {
        let state = self.lock();
        let mut names = pending.lock();
        let turn = names.turns.pop_first()?;
        let mut response = DeltaDiscoveryResponse {
            type_url: turn.kind().url().into(),
            ..Default::default()
        };
        let all = std::mem::take(&mut names.changed);
        for key in all {
            let held = state.held.get(&key);
            if key.0 != turn.kind() || !turn.tells(held.is_some()) {
                names.changed.insert(key);
            } else if let Some(resource) = held {
                response.resources.push(Resource::clone(resource));
            } else {
                response.removed_resources.push(key.1);
            }
        }
        Some(response)
    }

    /// Whether policies and workloads were both answered.
    #[must_use]
    pub(crate) fn complete(&self) -> bool {
        let state = self.lock();
        AWAITED.iter().all(|kind| state.answered.contains(kind))
    }

    /// How many resources are held.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.lock().held.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Resolves once there is something to be told.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
