//! Which worker serves a pod: a decision without I/O.

use std::fmt;

use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::Isolation;

#[cfg(test)]
mod tests;

/// Whose pods one worker serves. Written as a text, it is the key of the worker's keys in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// All that share.
    Shared,
    /// One namespace's.
    Namespace(String),
    /// One pod's, by its Kubernetes uid.
    Workload(String),
}

impl Scope {
    /// The scope of a pod.
    #[must_use]
    pub(crate) fn of(isolation: Isolation, namespace: &str, uid: &str) -> Self {
        match isolation {
            Isolation::Namespace => Self::Namespace(namespace.into()),
            Isolation::Workload => Self::Workload(uid.into()),
            Isolation::Shared | Isolation::Unspecified => Self::Shared,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("shared"),
            Self::Namespace(namespace) => write!(f, "namespace/{namespace}"),
            Self::Workload(uid) => write!(f, "workload/{uid}"),
        }
    }
}

/// What the control plane says of a pod, as far as assigning it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// Its isolation; unspecified where the control plane leaves it to the node.
    pub isolation: Isolation,
    /// The trust domain of its identity.
    pub trust_domain: String,
}

/// What is known of a pod. Nothing, where the control plane has not described it yet.
#[must_use]
pub(crate) fn described(store: &Store, workload_uid: &str, pod_uid: &str) -> Option<Described> {
    let workload = store.workload(workload_uid)?;
    // A pod that was replaced under the same name has another uid: its description is still to come.
    if let Some(placement) = &workload.placement
        && !placement.pod_uid.is_empty()
        && placement.pod_uid != pod_uid
    {
        return None;
    }
    let isolation = workload.placement.as_ref().map(|placement| placement.isolation);
    Some(Described {
        isolation: isolation.unwrap_or(Isolation::Unspecified),
        trust_domain: workload.identity.trust_domain().into(),
    })
}

/// The isolation that is known of a pod's namespace from what is said of its other pods: the narrowest, where
/// they differ. Nothing, where none is described.
#[must_use]
pub(crate) fn of_namespace(store: &Store, namespace: &str, unspecified: Isolation) -> Option<Isolation> {
    let snapshot = store.snapshot();
    let inhabitants = snapshot
        .workloads()
        .filter(|workload| workload.namespace == namespace);
    let said = inhabitants.filter_map(|workload| workload.placement.as_ref());
    said.map(|placement| specified(placement.isolation, unspecified))
        .max_by_key(|isolation| narrowness(*isolation))
}

/// An isolation, or the node's own where the control plane leaves it to the node.
#[must_use]
pub(crate) fn specified(isolation: Isolation, unspecified: Isolation) -> Isolation {
    match isolation {
        Isolation::Unspecified => unspecified,
        said => said,
    }
}

fn narrowness(isolation: Isolation) -> u8 {
    match isolation {
        Isolation::Unspecified | Isolation::Shared => 0,
        Isolation::Namespace => 1,
        Isolation::Workload => 2,
    }
}
