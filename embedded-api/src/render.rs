//! How objects are shown: whole, as their metadata, or as a table for `kubectl get`.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::columns;
use crate::kinds::Kind;

/// The form that a caller accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whole objects.
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`.
    Table,
}

impl Form {
    /// The first form that the `Accept` header names.
    #[must_use]
    pub(crate) fn accepted(header: &str) -> Self {
        for choice in header.split(',') {
            if choice.contains("as=Table") {
                return Self::Table;
            }
            if choice.contains("as=PartialObjectMetadata") {
                return Self::Metadata;
            }
            if choice.trim().starts_with("application/json") {
                break;
            }
        }
        Self::Whole
    }
}

/// One object, without a copy of it where it is whole.
#[must_use]
pub(crate) fn object<'a>(kind: &Kind, object: &'a Value, form: Form) -> Cow<'a, Value> {
    match form {
        Form::Whole => whole(kind, object),
        Form::Metadata => Cow::Owned(metadata(object)),
        Form::Table => Cow::Owned(table(
            kind,
            &[object],
            object["metadata"]["resourceVersion"].clone(),
        )),
    }
}

/// A list at a revision, as it is sent: the objects are written one by one, never copied into one value.
#[must_use]
pub(crate) fn list(kind: &Kind, objects: &[&Value], revision: u64, form: Form) -> String {
    let version = Value::String(revision.to_string());
    let (api_version, name) = match form {
        Form::Table => return table(kind, objects, version).to_string(),
        Form::Whole => (kind.api_version(), format!("{}List", kind.kind)),
        Form::Metadata => ("meta.k8s.io/v1".into(), "PartialObjectMetadataList".into()),
    };
    let head = json!({ "apiVersion": api_version, "kind": name, "metadata": { "resourceVersion": version } });
    let mut text = head.to_string();
    text.truncate(text.len() - 1);
    text.push_str(",\"items\":[");
    for (index, item) in objects.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{}", object(kind, item, form));
    }
    text.push_str("]}");
    text
}

/// An object as its kind's version: kinds that share their objects differ in it.
fn whole<'a>(kind: &Kind, object: &'a Value) -> Cow<'a, Value> {
    if object["apiVersion"] == kind.api_version() {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    object["apiVersion"] = kind.api_version().into();
    Cow::Owned(object)
}

/// A bookmark of a watch.
#[must_use]
pub(crate) fn bookmark(kind: &Kind, revision: u64, initial_end: bool, form: Form) -> Value {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if initial_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let (api_version, name) = match form {
        Form::Metadata => ("meta.k8s.io/v1".into(), "PartialObjectMetadata"),
        _ => (kind.api_version(), kind.kind),
    };
    let mut object = json!({ "apiVersion": api_version, "kind": name, "metadata": metadata });
    if form == Form::Table {
        let version = object["metadata"]["resourceVersion"].clone();
        let mut table = table(kind, &[], version);
        table["rows"] = json!([{ "cells": [], "object": object.take() }]);
        return table;
    }
    object
}

fn metadata(object: &Value) -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
}

fn table(kind: &Kind, objects: &[&Value], revision: Value) -> Value {
    let columns = columns::of(kind);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": "string", "priority": column.priority, "description": column.name,
                "format": if column.name == "Name" { "name" } else { "" },
            })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<String> = columns.iter().map(|column| (column.cell)(object)).collect();
            json!({ "cells": cells, "object": metadata(object) })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": revision },
        "columnDefinitions": definitions, "rows": rows,
    })
}
