//! The policies in force. A policy that was refused and has no last good version is remembered as closing
//! what it would have guarded: it never counts as absent.

use std::sync::Arc;

use trefoil_api::names::MESH_NAMESPACE;
use trefoil_api::policy::{Policy, Scope};

use super::Workload;

/// A policy as it is held.
#[derive(Clone, Debug, PartialEq)]
enum Held {
    /// In force.
    Good(Arc<Policy>),
    /// Refused, and never held: closes `scope`.
    Refused { namespace: String, scope: Scope },
}

/// All policies, by name, and by what they are for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    by_name: imbl::OrdMap<String, Held>,
    /// Names of mesh-wide policies.
    mesh: imbl::OrdSet<String>,
    /// Names of namespace-wide policies, with their namespace first.
    namespaces: imbl::OrdSet<(String, String)>,
}

/// What guards one workload.
#[derive(Clone, Debug, Default)]
pub struct Guarding {
    /// To be evaluated.
    pub policies: Vec<Arc<Policy>>,
    /// A policy that is not known or was refused: the workload is closed.
    pub unknown: Option<String>,
}

impl Policies {
    /// Takes a policy that was understood, in place of whatever had its name.
    pub(super) fn insert(&mut self, name: &str, policy: Policy) {
        self.remove(name);
        self.index(name, &policy.namespace, policy.scope);
        self.by_name.insert(name.into(), Held::Good(Arc::new(policy)));
    }

    /// Notes that a policy was refused. A last good version stays in force.
    pub(super) fn refuse(&mut self, name: &str, scope: Option<Scope>) {
        if matches!(self.by_name.get(name), Some(Held::Good(_))) {
            return;
        }
        self.remove(name);
        let namespace = name.split('/').next().unwrap_or_default().to_owned();
        // What cannot be read may have been mesh-wide only in the mesh's own namespace.
        let widest = if namespace == MESH_NAMESPACE {
            Scope::Mesh
        } else {
            Scope::Namespace
        };
        let scope = scope.unwrap_or(widest);
        self.index(name, &namespace, scope);
        self.by_name
            .insert(name.into(), Held::Refused { namespace, scope });
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(old) = self.by_name.remove(name) else {
            return false;
        };
        let (namespace, scope) = match &old {
            Held::Good(policy) => (&policy.namespace, policy.scope),
            Held::Refused { namespace, scope } => (namespace, *scope),
        };
        match scope {
            Scope::Mesh => drop(self.mesh.remove(name)),
            Scope::Namespace => drop(self.namespaces.remove(&(namespace.clone(), name.to_owned()))),
            Scope::Workload => {}
        }
        true
    }

    fn index(&mut self, name: &str, namespace: &str, scope: Scope) {
        match scope {
            Scope::Mesh => drop(self.mesh.insert(name.into())),
            Scope::Namespace => drop(self.namespaces.insert((namespace.into(), name.into()))),
            Scope::Workload => {}
        }
    }

    /// The policies that are for a workload: the mesh's, its namespace's, and those it names.
    #[must_use]
    pub fn guarding(&self, workload: &Workload) -> Guarding {
        let mut guarding = Guarding::default();
        for name in &self.mesh {
            self.add(name, &mut guarding);
        }
        let first = (workload.namespace.clone(), String::new());
        for (namespace, name) in self.namespaces.range(first..) {
            if *namespace != workload.namespace {
                break;
            }
            self.add(name, &mut guarding);
        }
        for name in &workload.policies {
            self.add(name, &mut guarding);
        }
        guarding
    }

    fn add(&self, name: &str, to: &mut Guarding) {
        match self.by_name.get(name) {
            Some(Held::Good(policy)) => to.policies.push(policy.clone()),
            Some(Held::Refused { .. }) | None => to.unknown = Some(name.into()),
        }
    }

    /// Whether there is a policy of that name, in force or refused.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Every policy with its name; none for those that were refused and close what they are for.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Policy>)> {
        self.by_name.iter().map(|(name, held)| match held {
            Held::Good(policy) => (name.as_str(), Some(policy.as_ref())),
            Held::Refused { .. } => (name.as_str(), None),
        })
    }
}
