//! What goes with an object: what it owned, and what lived in a namespace. All in the transaction of its end.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds;
use crate::lifecycle;
use crate::store::{Key, Transaction};

/// Events that are kept.
const EVENTS: usize = 2_000;

/// The uids that own anything: found once, since looking for the dependents of each object that goes would
/// read the whole store each time.
#[derive(Debug)]
pub(crate) struct Owners(HashSet<String>);

impl Owners {
    /// Of everything there is.
    pub(crate) fn of(transaction: &Transaction) -> Self {
        let references = transaction
            .all()
            .filter_map(|(_, object)| owners(object))
            .flatten();
        Self(
            references
                .filter_map(|owner| owner["uid"].as_str())
                .map(str::to_owned)
                .collect(),
        )
    }

    fn has(&self, object: &Value) -> bool {
        object["metadata"]["uid"]
            .as_str()
            .is_some_and(|uid| self.0.contains(uid))
    }
}

/// Removes an object that nobody holds, and what only it owned (or, with `orphan`, the mention of it).
pub(crate) fn remove(
    transaction: &mut Transaction,
    key: &Key,
    owners_known: &Owners,
    orphan: bool,
) -> Option<Arc<Value>> {
    let last = transaction.delete(key)?;
    let mut gone = VecDeque::from([last.clone()]);
    while let Some(owner) = gone.pop_front() {
        if owners_known.has(&owner) {
            release(transaction, &owner, orphan, &mut gone);
        }
    }
    finish_namespace(transaction, &key.namespace);
    Some(last)
}

/// Lets go of what an owner that has gone owned.
fn release(transaction: &mut Transaction, owner: &Value, orphan: bool, gone: &mut VecDeque<Arc<Value>>) {
    for (key, object) in dependents(transaction, owner) {
        let kept = without_owner(&object, owner);
        if orphan || owners(&kept).is_some_and(|owners| !owners.is_empty()) {
            transaction.put(key, kept);
        } else if lifecycle::held(&object) {
            let now = owner["metadata"]["deletionTimestamp"].as_str();
            let now = now
                .or(object["metadata"]["creationTimestamp"].as_str())
                .unwrap_or_default();
            transaction.put(key, lifecycle::condemn(&object, now));
        } else {
            gone.extend(transaction.delete(&key));
        }
    }
}

/// Deletes a namespace's objects, and the namespace once none is left.
pub(crate) fn delete_namespace(
    transaction: &mut Transaction,
    existing: &Value,
    name: &str,
    now: &str,
) -> Arc<Value> {
    let key = Key::new(kinds::NAMESPACE.resource, "", name);
    let mut going = lifecycle::condemn(existing, now);
    going["status"] = json!({ "phase": "Terminating" });
    let going = transaction.put(key, going);
    let inside: Vec<(Key, Arc<Value>)> = transaction
        .all()
        .filter(|(key, _)| &*key.namespace == name)
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    // Owners and what they own live in the same namespace: all of it goes anyway.
    for (key, object) in inside {
        if !lifecycle::held(&object) {
            transaction.delete(&key);
        } else if !lifecycle::condemned(&object) {
            transaction.put(key, lifecycle::condemn(&object, now));
        }
    }
    finish_namespace(transaction, name);
    going
}

/// Ends a namespace that is going, empty, and held by nobody.
pub(crate) fn finish_namespace(transaction: &mut Transaction, name: &str) {
    let key = Key::new(kinds::NAMESPACE.resource, "", name);
    let Some(namespace) = transaction.get(&key) else {
        return;
    };
    let ready = lifecycle::condemned(&namespace) && !lifecycle::held(&namespace);
    if ready && !transaction.all().any(|(key, _)| &*key.namespace == name) {
        transaction.delete(&key);
    }
}

/// Drops the oldest events beyond a bound: nothing else ever deletes them.
pub(crate) fn forget_events(transaction: &mut Transaction) {
    let resource = kinds::EVENT.resource;
    if transaction.list(resource, None).count() <= EVENTS {
        return;
    }
    let created = |object: &Value| {
        object["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    let mut events: Vec<(String, Key)> = transaction
        .list(resource, None)
        .map(|(key, object)| (created(object), key.clone()))
        .collect();
    events.sort();
    for (_, key) in events.into_iter().take(EVENTS / 10) {
        transaction.delete(&key);
    }
}

fn owners(object: &Value) -> Option<&Vec<Value>> {
    object["metadata"]["ownerReferences"].as_array()
}

fn dependents(transaction: &Transaction, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let uid = &owner["metadata"]["uid"];
    let namespace = owner["metadata"]["namespace"].as_str();
    transaction
        .all()
        .filter(|(key, object)| {
            namespace.is_none_or(|namespace| &*key.namespace == namespace)
                && owners(object).is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
        })
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect()
}

fn without_owner(object: &Value, owner: &Value) -> Value {
    let mut object = object.clone();
    if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|other| other["uid"] != owner["metadata"]["uid"]);
    }
    object
}
