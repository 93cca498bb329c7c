//! What goes with an object: what it owned, and what lived in a namespace. All in the transaction of its end.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::kinds;
use super::lifecycle;
use crate::store::{Key, Transaction};

/// Removes an object that nobody holds, and what only it owned (or, with `orphan`, the mention of it).
pub(super) fn remove(transaction: &mut Transaction, key: &Key, orphan: bool) -> Option<Arc<Value>> {
    let last = transaction.delete(key)?;
    let mut gone = VecDeque::from([last.clone()]);
    while let Some(owner) = gone.pop_front() {
        for (key, object) in dependents(transaction, &owner) {
            let kept = without_owner(&object, &owner);
            let owners = kept["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
            if orphan || owners > 0 {
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
        if let Some(namespace) = owner["metadata"]["namespace"].as_str() {
            finish_namespace(transaction, &namespace.to_owned());
        }
    }
    Some(last)
}

/// Deletes a namespace's objects, and the namespace once none is left.
pub(super) fn delete_namespace(
    transaction: &mut Transaction,
    existing: &Value,
    name: &str,
    now: &str,
) -> Arc<Value> {
    let key = Key::new(kinds::NAMESPACE.resource, "", name);
    let mut going = lifecycle::condemn(existing, now);
    going["status"] = serde_json::json!({ "phase": "Terminating" });
    let going = transaction.put(key, going);
    let inside: Vec<Key> = transaction
        .all()
        .map(|(key, _)| key)
        .filter(|key| &*key.namespace == name)
        .cloned()
        .collect();
    for key in inside {
        let Some(object) = transaction.get(&key) else {
            continue;
        };
        if lifecycle::held(&object) {
            if !lifecycle::condemned(&object) {
                transaction.put(key, lifecycle::condemn(&object, now));
            }
        } else {
            remove(transaction, &key, false);
        }
    }
    finish_namespace(transaction, name);
    going
}

/// Ends a namespace that is going, empty, and held by nobody.
pub(super) fn finish_namespace(transaction: &mut Transaction, name: &str) {
    let key = Key::new(kinds::NAMESPACE.resource, "", name);
    let Some(namespace) = transaction.get(&key) else {
        return;
    };
    let ready = lifecycle::condemned(&namespace) && !lifecycle::held(&namespace);
    if ready && !transaction.all().any(|(key, _)| &*key.namespace == name) {
        transaction.delete(&key);
    }
}

fn dependents(transaction: &Transaction, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let uid = &owner["metadata"]["uid"];
    let namespace = owner["metadata"]["namespace"].as_str();
    transaction
        .all()
        .filter(|(key, object)| {
            namespace.is_none_or(|namespace| &*key.namespace == namespace)
                && object["metadata"]["ownerReferences"]
                    .as_array()
                    .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
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
