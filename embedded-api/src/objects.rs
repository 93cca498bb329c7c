//! The verbs that change objects, each one transaction of the store.
//!
//! What an object becomes is decided by [`lifecycle`](crate::lifecycle); this module fetches, decides and
//! puts, and must never touch the network.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::collect::{self, Owners};
use crate::kinds::{self, Kind};
use crate::lifecycle::{self, Birth, Judge, Part};
use crate::status::ApiError;
use crate::store::{Key, Transaction};

/// One object's address.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace, when the kind has them.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Place {
    /// The key in the store.
    #[must_use]
    pub(crate) fn key(&self) -> Key {
        Key::new(
            self.kind.resource,
            self.namespace.as_deref().unwrap_or_default(),
            &self.name,
        )
    }

    /// The refusal that says that nothing is there.
    #[must_use]
    pub(crate) fn missing(&self) -> ApiError {
        ApiError::NotFound {
            kind: self.kind,
            name: self.name.clone(),
        }
    }
}

/// Creates an object.
///
/// # Errors
/// When its namespace is missing or going, when there is one of that name, or when it is malformed.
pub(crate) fn create(
    transaction: &mut Transaction,
    kind: &'static Kind,
    namespace: Option<&str>,
    object: Value,
    birth: &Birth,
    judge: Judge<'_>,
) -> Result<Arc<Value>, ApiError> {
    let object = lifecycle::create(kind, namespace, object, birth, judge)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let place = Place {
        kind,
        namespace: namespace.map(str::to_owned),
        name,
    };
    if let Some(namespace) = namespace {
        living(transaction, namespace)?;
    }
    if transaction.get(&place.key()).is_some() {
        return Err(ApiError::AlreadyExists {
            kind,
            name: place.name,
        });
    }
    let created = transaction.put(place.key(), object);
    if *kind == kinds::NAMESPACE {
        account(transaction, &place.name, birth);
    } else if kind.resource == kinds::EVENT.resource {
        collect::forget_events(transaction);
    }
    Ok(created)
}

/// A namespace that objects can be created in.
fn living(transaction: &Transaction, name: &str) -> Result<(), ApiError> {
    let namespace = Place {
        kind: &kinds::NAMESPACE,
        namespace: None,
        name: name.to_owned(),
    };
    let object = transaction
        .get(&namespace.key())
        .ok_or_else(|| namespace.missing())?;
    if lifecycle::condemned(&object) {
        return Err(ApiError::Forbidden(format!(
            "unable to create new content in namespace {name} because it is being terminated"
        )));
    }
    Ok(())
}

/// Every namespace has a service account `default`.
fn account(transaction: &mut Transaction, namespace: &str, birth: &Birth) {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {
            "name": "default", "namespace": namespace, "creationTimestamp": birth.now,
            "uid": uuid::Uuid::new_v4().to_string(),
        },
    });
    transaction.put(
        Key::new(kinds::SERVICE_ACCOUNT.resource, namespace, "default"),
        account,
    );
}

/// What an update makes of the existing object.
pub(crate) type Change<'a> = &'a dyn Fn(&Value) -> Result<Value, ApiError>;

/// Updates an object. One that is going and that nobody holds any more goes.
///
/// # Errors
/// When there is none, when it has changed since, or when the result is malformed.
pub(crate) fn update(
    transaction: &mut Transaction,
    place: &Place,
    part: Part,
    change: Change<'_>,
    judge: Judge<'_>,
) -> Result<Arc<Value>, ApiError> {
    let existing = transaction.get(&place.key()).ok_or_else(|| place.missing())?;
    let updated = lifecycle::update(place.kind, &existing, change(&existing)?, part, judge)?;
    if updated == *existing {
        return Ok(existing);
    }
    if lifecycle::condemned(&updated) && !lifecycle::held(&updated) && *place.kind != kinds::NAMESPACE {
        transaction.put(place.key(), updated);
        let owners = Owners::of(transaction);
        return collect::remove(transaction, &place.key(), &owners, false).ok_or_else(|| place.missing());
    }
    let updated = transaction.put(place.key(), updated);
    if lifecycle::condemned(&updated) && *place.kind == kinds::NAMESPACE {
        collect::finish_namespace(transaction, &place.name);
    }
    Ok(updated)
}

/// What a delete asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletion {
    /// Only if it is this object.
    pub uid: Option<String>,
    /// Only in this version.
    pub resource_version: Option<String>,
    /// Leave what it owns.
    pub orphan: bool,
    /// Only say what would happen.
    pub dry_run: bool,
}

impl Deletion {
    /// From `DeleteOptions` in the body, or the query.
    #[must_use]
    pub(crate) fn from_options(options: &Value, policy: Option<&str>) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            uid: text(&options["preconditions"]["uid"]),
            resource_version: text(&options["preconditions"]["resourceVersion"]),
            orphan: policy.or(options["propagationPolicy"].as_str()) == Some("Orphan")
                || options["orphanDependents"] == true,
            dry_run: options["dryRun"][0] == "All",
        }
    }
}

/// Deletes an object: at once, or once its finalizers have gone. There is no grace period.
///
/// # Errors
/// When there is none, or when it is not the one meant.
pub(crate) fn delete(
    transaction: &mut Transaction,
    place: &Place,
    deletion: &Deletion,
    owners: &Owners,
    now: &str,
) -> Result<Arc<Value>, ApiError> {
    let existing = transaction.get(&place.key()).ok_or_else(|| place.missing())?;
    let differs = |wanted: &Option<String>, field: &str| {
        wanted
            .as_ref()
            .is_some_and(|wanted| existing["metadata"][field] != wanted.as_str())
    };
    if differs(&deletion.uid, "uid") || differs(&deletion.resource_version, "resourceVersion") {
        let why = "Precondition failed: it is another object or version".into();
        return Err(ApiError::Conflict {
            kind: place.kind,
            name: place.name.clone(),
            why,
        });
    }
    if *place.kind == kinds::NAMESPACE {
        if matches!(place.name.as_str(), "default" | "kube-system") {
            return Err(ApiError::Forbidden(format!(
                "namespace {} cannot be deleted",
                place.name
            )));
        }
        return Ok(collect::delete_namespace(
            transaction,
            &existing,
            &place.name,
            now,
        ));
    }
    if lifecycle::held(&existing) {
        if lifecycle::condemned(&existing) {
            return Ok(existing);
        }
        return Ok(transaction.put(place.key(), lifecycle::condemn(&existing, now)));
    }
    collect::remove(transaction, &place.key(), owners, deletion.orphan).ok_or_else(|| place.missing())
}
