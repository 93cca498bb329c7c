//! Small indices over what was computed last: who names whom, what is found wrong with whom.

use std::collections::{BTreeMap, BTreeSet};

use super::ObjectKey;

/// Objects, and others that they name.
#[derive(Debug, Default)]
pub(super) struct Relation {
    of: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    naming: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Relation {
    /// Says what an object names from now on; those for which that differs.
    pub(super) fn set(&mut self, key: &ObjectKey, named: BTreeSet<ObjectKey>) -> BTreeSet<ObjectKey> {
        let old = self.of.get(key).cloned().unwrap_or_default();
        let differs: BTreeSet<ObjectKey> = old.symmetric_difference(&named).cloned().collect();
        for gone in old.difference(&named) {
            if let Some(all) = self.naming.get_mut(gone) {
                all.remove(key);
                if all.is_empty() {
                    self.naming.remove(gone);
                }
            }
        }
        for new in named.difference(&old) {
            self.naming.entry(new.clone()).or_default().insert(key.clone());
        }
        match named.is_empty() {
            true => self.of.remove(key),
            false => self.of.insert(key.clone(), named),
        };
        differs
    }

    /// The objects that name one.
    pub(super) fn naming(&self, named: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.naming.get(named).into_iter().flatten()
    }
}

/// What is found wrong with services and pods, for people.
#[derive(Debug, Default)]
pub(super) struct Findings {
    all: BTreeMap<(&'static str, ObjectKey), String>,
}

impl Findings {
    /// Says what is wrong with an object, or that nothing is; whether that is news.
    pub(super) fn set(&mut self, kind: &'static str, key: &ObjectKey, fault: Option<String>) -> bool {
        let old = match &fault {
            Some(fault) => self.all.insert((kind, key.clone()), fault.clone()),
            None => self.all.remove(&(kind, key.clone())),
        };
        old != fault
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = String> {
        self.all
            .iter()
            .map(|((kind, key), fault)| format!("{kind} {key}: {fault}"))
    }
}
