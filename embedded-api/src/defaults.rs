//! The few defaults of Kubernetes that readers of these kinds count on. Pure, and idempotent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::kinds::{self, Kind};

/// Completes an object.
pub(crate) fn apply(kind: &'static Kind, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if *kind == kinds::NAMESPACE {
        namespace(fields);
    } else if *kind == kinds::POD {
        if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
            default(spec, "serviceAccountName", "default".into());
            default(spec, "restartPolicy", "Always".into());
        }
        if let Some(status) = fields
            .entry("status")
            .or_insert_with(|| json!({}))
            .as_object_mut()
        {
            default(status, "phase", "Pending".into());
        }
    } else if *kind == kinds::SERVICE {
        service(fields);
    } else if *kind == kinds::SECRET {
        secret(fields);
    } else if kind.resource == kinds::EVENT.resource {
        event(fields);
    }
}

fn default(fields: &mut Map<String, Value>, name: &str, value: Value) {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.into(), value);
    }
}

fn namespace(fields: &mut Map<String, Value>) {
    let going = fields
        .get("metadata")
        .is_some_and(|metadata| !metadata["deletionTimestamp"].is_null());
    let phase = if going { "Terminating" } else { "Active" };
    fields.insert("status".into(), json!({ "phase": phase }));
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        let name = metadata.get("name").cloned().unwrap_or_default();
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if labels.is_null() {
            *labels = json!({});
        }
        if let Some(labels) = labels.as_object_mut() {
            labels.insert("kubernetes.io/metadata.name".into(), name);
        }
    }
}

fn service(fields: &mut Map<String, Value>) {
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    default(spec, "type", "ClusterIP".into());
    default(spec, "sessionAffinity", "None".into());
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        default(port, "protocol", "TCP".into());
        let number = port.get("port").cloned().unwrap_or_default();
        default(port, "targetPort", number);
    }
}

/// `stringData` is for writing only: it becomes `data`.
fn secret(fields: &mut Map<String, Value>) {
    default(fields, "type", "Opaque".into());
    let Some(Value::Object(plain)) = fields.remove("stringData") else {
        return;
    };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if let Some(data) = data.as_object_mut() {
        for (name, value) in plain {
            data.insert(name, STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }
}

/// Events have two forms with other names for the same; both are kept, so that either is read.
fn event(fields: &mut Map<String, Value>) {
    for (core, newer) in [
        ("involvedObject", "regarding"),
        ("message", "note"),
        ("reportingComponent", "reportingController"),
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
    ] {
        for (from, to) in [(core, newer), (newer, core)] {
            if let Some(value) = fields.get(from).filter(|value| !value.is_null()).cloned() {
                default(fields, to, value);
            }
        }
    }
    default(fields, "involvedObject", json!({}));
}
