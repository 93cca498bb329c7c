//! What becomes of an object when it is created, updated, or asked to go. Pure: time and randomness come in.

use serde_json::{Map, Value, json};

use crate::defaults;
use crate::kinds::{self, Kind};
use crate::metadata;
use crate::status::{ApiError, FieldError};

/// Judges an object of a kind: nothing, or every field that is malformed.
pub(crate) type Judge<'a> = &'a dyn Fn(&str, &str, &Value) -> Result<(), Vec<FieldError>>;

/// What an object needs from outside when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Birth {
    /// RFC 3339, seconds.
    pub now: String,
    /// Its uid.
    pub uid: String,
    /// What follows `metadata.generateName`.
    pub suffix: String,
}

/// Which part of an object an update may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status, where the kind has a status subresource.
    Main,
    /// The status alone.
    Status,
}

/// Makes the object that a create asks for.
///
/// # Errors
/// When it is not of this kind and namespace, or malformed.
pub(crate) fn create(
    kind: &'static Kind,
    namespace: Option<&str>,
    mut object: Value,
    birth: &Birth,
    judge: Judge<'_>,
) -> Result<Value, ApiError> {
    shape(kind, namespace, &mut object)?;
    let metadata = metadata_of(&mut object)?;
    if metadata
        .get("resourceVersion")
        .and_then(Value::as_str)
        .is_some_and(|version| !version.is_empty())
    {
        return Err(ApiError::BadRequest(
            "resourceVersion should not be set on objects to be created".into(),
        ));
    }
    let named = metadata
        .get("name")
        .and_then(Value::as_str)
        .is_some_and(|name| !name.is_empty());
    if let (false, Some(prefix)) = (named, metadata.get("generateName").and_then(Value::as_str)) {
        let name = format!("{prefix}{}", birth.suffix);
        metadata.insert("name".into(), name.into());
    }
    for field in [
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), birth.uid.clone().into());
    metadata.insert("creationTimestamp".into(), birth.now.clone().into());
    if has_generation(kind) {
        metadata.insert("generation".into(), json!(1));
    }
    if kind.status
        && *kind != kinds::NODE
        && let Some(object) = object.as_object_mut()
    {
        // As Kubernetes: only a status write says a status (a node's is its kubelet's from the beginning).
        object.remove("status");
    }
    defaults::apply(kind, &mut object);
    examine(kind, &object, judge)?;
    Ok(object)
}

/// Makes the object that an update of an existing one asks for; equal to it when nothing would change.
///
/// # Errors
/// When it is not that object, is based on an older version of it, or is malformed.
pub(crate) fn update(
    kind: &'static Kind,
    existing: &Value,
    mut object: Value,
    part: Part,
    judge: Judge<'_>,
) -> Result<Value, ApiError> {
    shape(kind, existing["metadata"]["namespace"].as_str(), &mut object)?;
    agree(kind, existing, &object)?;
    let mut updated = match (part, kind.status) {
        (Part::Status, _) => {
            let mut updated = existing.clone();
            copy(&object, &mut updated, "status");
            updated
        }
        (Part::Main, true) => {
            copy(existing, &mut object, "status");
            object
        }
        (Part::Main, false) => object,
    };
    let metadata = metadata_of(&mut updated)?;
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "generation",
        "resourceVersion",
    ] {
        match existing["metadata"].get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.remove("managedFields");
    metadata.remove("selfLink");
    defaults::apply(kind, &mut updated);
    if has_generation(kind) && part == Part::Main && body(&updated) != body(existing) {
        let generation = existing["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
        updated["metadata"]["generation"] = json!(generation);
    }
    if updated != *existing {
        examine(kind, &updated, judge)?;
    }
    Ok(updated)
}

/// Marks an object as going, at a time; unchanged when it is already.
#[must_use]
pub(crate) fn condemn(existing: &Value, now: &str) -> Value {
    let mut object = existing.clone();
    if object["metadata"]["deletionTimestamp"].is_null() {
        object["metadata"]["deletionTimestamp"] = now.into();
        object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    }
    object
}

/// Whether an object is marked as going.
#[must_use]
pub(crate) fn condemned(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Whether somebody still wants to do something before the object goes.
#[must_use]
pub(crate) fn held(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty())
}

fn has_generation(kind: &Kind) -> bool {
    kind.custom() || matches!(kind.kind, "NetworkPolicy" | "EndpointSlice" | "Pod")
}

/// Everything whose change is a new generation: all but metadata and status.
fn body(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status"))
        .collect()
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    if let Some(to) = to.as_object_mut() {
        match from.get(field) {
            Some(value) => to.insert(field.into(), value.clone()),
            None => to.remove(field),
        };
    }
}

/// Checks and completes `apiVersion`, `kind` and `metadata.namespace`.
fn shape(kind: &'static Kind, namespace: Option<&str>, object: &mut Value) -> Result<(), ApiError> {
    let bad = |what: &str, said: &str, expected: &str| {
        ApiError::BadRequest(format!(
            "the {what} in the object ({said}) does not match the {what} in the request ({expected})"
        ))
    };
    let fields = object
        .as_object_mut()
        .ok_or_else(|| ApiError::BadRequest("not an object".into()))?;
    for (field, expected) in [("apiVersion", kind.api_version()), ("kind", kind.kind.to_owned())] {
        let said = fields.get(field).and_then(Value::as_str).unwrap_or_default();
        if !said.is_empty() && said != expected {
            return Err(bad(field, said, &expected));
        }
        fields.insert(field.into(), expected.into());
    }
    let metadata = metadata_of(object)?;
    let said = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    match namespace {
        Some(namespace) if said.is_empty() => {
            metadata.insert("namespace".into(), namespace.into());
        }
        Some(namespace) if said != namespace => return Err(bad("namespace", &said, namespace)),
        None => {
            metadata.remove("namespace");
        }
        Some(_) => {}
    }
    Ok(())
}

fn metadata_of(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let missing = || ApiError::BadRequest("metadata must be an object".into());
    let fields = object.as_object_mut().ok_or_else(missing)?;
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut().ok_or_else(missing)
}

/// An update must mean the existing object, in the version that it was based on.
fn agree(kind: &'static Kind, existing: &Value, object: &Value) -> Result<(), ApiError> {
    let name = existing["metadata"]["name"].as_str().unwrap_or_default();
    let said = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty());
    if said("name").is_some_and(|said| said != name) {
        return Err(ApiError::BadRequest(
            "the name in the object does not match the name in the request".into(),
        ));
    }
    let stale = |why: &str| ApiError::Conflict {
        kind,
        name: name.into(),
        why: why.into(),
    };
    if said("uid").is_some_and(|uid| existing["metadata"]["uid"] != uid) {
        return Err(stale("Precondition failed: the uid is another object's"));
    }
    if said("resourceVersion").is_some_and(|version| existing["metadata"]["resourceVersion"] != version) {
        return Err(stale(
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    Ok(())
}

fn examine(kind: &'static Kind, object: &Value, judge: Judge<'_>) -> Result<(), ApiError> {
    let mut causes = metadata::check(object, kind.resource);
    if let Err(more) = judge(kind.group, kind.kind, object) {
        causes.extend(more);
    }
    if causes.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Err(ApiError::Invalid { kind, name, causes })
}
