//! Strategic merge patch, for the kinds that Kubernetes itself defines: maps merge, and lists whose elements
//! have a key merge by it. What `kubectl apply` and `kubectl edit` send. Pure.
//!
//! A directive that is not understood is refused: a patch must never be half understood.

use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::status::ApiError;

const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Merges a patch into an object.
///
/// # Errors
/// When a directive is not understood, or an element has no key.
pub(crate) fn merge(kind: &Kind, target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    merge_value(kind, target, patch, "")
}

/// By which field the elements of a list are told apart, as in Kubernetes' own types; lists of others are
/// replaced.
fn merge_key(kind: &Kind, field: &str) -> Option<&'static str> {
    Some(match (kind.kind, field) {
        (_, "conditions") => "type",
        (_, "ownerReferences") => "uid",
        ("Service", "ports") => "port",
        ("Pod", "ports") => "containerPort",
        ("Node", "addresses") => "type",
        ("Pod", "podIPs" | "hostIPs") => "ip",
        ("Pod", "volumeMounts") => "mountPath",
        ("Pod", "hostAliases") => "ip",
        (
            "Pod",
            "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes" | "imagePullSecrets",
        )
        | ("ServiceAccount", "secrets" | "imagePullSecrets") => "name",
        _ => return None,
    })
}

fn merge_value(kind: &Kind, target: &mut Value, patch: &Value, field: &str) -> Result<(), ApiError> {
    match patch {
        Value::Object(fields) => merge_map(kind, target, fields),
        Value::Array(elements) => match merge_key(kind, field) {
            Some(key) => merge_list(kind, target, elements, key),
            None if field == "finalizers" => {
                let list = list_of(target);
                list.extend(
                    elements
                        .iter()
                        .filter(|one| !list.contains(one))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
                Ok(())
            }
            None => {
                *target = patch.clone();
                Ok(())
            }
        },
        _ => {
            *target = patch.clone();
            Ok(())
        }
    }
}

fn merge_map(kind: &Kind, target: &mut Value, patch: &Map<String, Value>) -> Result<(), ApiError> {
    if !target.is_object() || directive(patch) == Some("replace") {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return Ok(());
    };
    for (name, value) in patch.iter().filter(|(name, _)| name.starts_with('$')) {
        match (name.as_str(), value) {
            ("$patch", Value::String(text)) if matches!(text.as_str(), "replace" | "merge") => {}
            ("$patch", Value::String(text)) if text == "delete" => fields.clear(),
            ("$retainKeys", Value::Array(keys)) => {
                fields.retain(|name, _| keys.iter().any(|key| key == name.as_str()));
            }
            (name, Value::Array(values)) if name.starts_with(DELETE_FROM) => {
                if let Some(list) = fields
                    .get_mut(&name[DELETE_FROM.len()..])
                    .and_then(Value::as_array_mut)
                {
                    list.retain(|one| !values.contains(one));
                }
            }
            (name, Value::Array(_)) if name.starts_with(ORDER) => {}
            _ => {
                return Err(ApiError::UnsupportedMediaType(format!(
                    "the strategic merge directive {name}: {value} is not understood: use a merge patch"
                )));
            }
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge_value(
                kind,
                fields.entry(name.clone()).or_insert(Value::Null),
                value,
                name,
            )?;
        }
    }
    for (name, value) in patch {
        if let (Some(name), Value::Array(order)) = (name.strip_prefix(ORDER), value)
            && let Some(list) = fields.get_mut(name).and_then(Value::as_array_mut)
        {
            put_in_order(list, order, merge_key(kind, name));
        }
    }
    Ok(())
}

fn merge_list(kind: &Kind, target: &mut Value, elements: &[Value], key: &str) -> Result<(), ApiError> {
    let list = list_of(target);
    let says = |element: &Value, what: &str| element.as_object().and_then(directive) == Some(what);
    if elements.iter().any(|element| says(element, "replace")) {
        *list = elements
            .iter()
            .filter(|element| !says(element, "replace"))
            .cloned()
            .collect();
        return Ok(());
    }
    for element in elements {
        if element[key].is_null() {
            return Err(ApiError::BadRequest(format!(
                "an element of the patch has no {key:?} to merge it by"
            )));
        }
        let position = list.iter().position(|other| other[key] == element[key]);
        match position {
            Some(index) if says(element, "delete") => {
                list.remove(index);
            }
            Some(index) => merge_value(kind, &mut list[index], element, "")?,
            None if says(element, "delete") => {}
            None => {
                let mut added = Value::Null;
                merge_value(kind, &mut added, element, "")?;
                list.push(added);
            }
        }
    }
    Ok(())
}

fn directive(patch: &Map<String, Value>) -> Option<&str> {
    patch.get("$patch").and_then(Value::as_str)
}

fn list_of(target: &mut Value) -> &mut Vec<Value> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    match target {
        Value::Array(list) => list,
        _ => unreachable!("made a list above"),
    }
}

/// Elements that the order names come first, in it; the others stay behind them as they are.
fn put_in_order(list: &mut [Value], order: &[Value], key: Option<&str>) {
    let same = |element: &Value, wanted: &Value| match key {
        Some(key) => element[key] == wanted[key],
        None => element == wanted,
    };
    list.sort_by_key(|element| {
        order
            .iter()
            .position(|wanted| same(element, wanted))
            .unwrap_or(order.len())
    });
}
