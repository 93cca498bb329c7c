//! How objects are shown: whole, as their metadata, or as a table for `kubectl get`.

use serde_json::{Value, json};

use super::columns;
use super::kinds::Kind;

/// The form that a caller accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
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
    pub(super) fn accepted(header: &str) -> Self {
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

/// One object.
#[must_use]
pub(super) fn object(kind: &Kind, object: &Value, form: Form) -> Value {
    match form {
        Form::Whole => object.clone(),
        Form::Metadata => metadata(object),
        Form::Table => table(
            kind,
            std::slice::from_ref(&object),
            object["metadata"]["resourceVersion"].clone(),
        ),
    }
}

/// A list at a revision.
#[must_use]
pub(super) fn list(kind: &Kind, objects: &[&Value], revision: u64, form: Form) -> Value {
    let version = Value::String(revision.to_string());
    let (api_version, name, items) = match form {
        Form::Table => return table(kind, objects, version),
        Form::Whole => (
            kind.api_version(),
            format!("{}List", kind.kind),
            objects.iter().map(|&item| item.clone()).collect(),
        ),
        Form::Metadata => (
            "meta.k8s.io/v1".into(),
            "PartialObjectMetadataList".into(),
            objects.iter().map(|item| metadata(item)).collect::<Vec<_>>(),
        ),
    };
    json!({ "apiVersion": api_version, "kind": name, "metadata": { "resourceVersion": version }, "items": items })
}

/// A bookmark of a watch.
#[must_use]
pub(super) fn bookmark(kind: &Kind, revision: u64, initial_end: bool, form: Form) -> Value {
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
