//! A transaction: reads see its own writes, and nothing leaves it before the commit.
//!
//! Each put and delete takes a revision of its own, so that a watch can stop between any two.

use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::{Event, Key, Objects};

/// The changes of one writer over the latest content.
#[derive(Debug)]
pub struct Transaction {
    pub(super) objects: Objects,
    pub(super) revision: u64,
    pub(super) events: Vec<Arc<Event>>,
}

impl Transaction {
    pub(super) fn new(objects: Objects, revision: u64) -> Self {
        Self {
            objects,
            revision,
            events: Vec::new(),
        }
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// The objects of a resource, in one namespace or in all.
    pub fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 'a {
        range(&self.objects, resource, namespace)
    }

    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Creates or replaces an object, and returns it with its new `metadata.resourceVersion`.
    pub fn put(&mut self, key: Key, mut value: Value) -> Arc<Value> {
        self.revision += 1;
        stamp(&mut value, self.revision);
        let value = Arc::new(value);
        let before = self.objects.insert(key.clone(), value.clone());
        self.record(key, before, Some(value.clone()));
        value
    }

    /// Deletes an object, and returns its last state with the revision of its deletion.
    pub fn delete(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.revision += 1;
        let mut last = (*before).clone();
        stamp(&mut last, self.revision);
        let last = Arc::new(last);
        self.record(key.clone(), Some(last.clone()), None);
        Some(last)
    }

    fn record(&mut self, key: Key, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        self.events.push(Arc::new(Event {
            revision: self.revision,
            key,
            before,
            after,
        }));
    }
}

fn stamp(value: &mut Value, revision: u64) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
    }
}

/// The neighbours that are a resource's objects, or those of one namespace of it.
pub(super) fn range<'a>(
    objects: &'a Objects,
    resource: &'a str,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 'a {
    let start = Key::new(resource, namespace.unwrap_or_default(), "");
    objects
        .range((Bound::Included(start), Bound::Unbounded))
        .take_while(move |(key, _)| {
            &*key.resource == resource && namespace.is_none_or(|namespace| &*key.namespace == namespace)
        })
}
