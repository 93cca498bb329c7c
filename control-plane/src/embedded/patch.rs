//! The patch formats: JSON merge patch (RFC 7396), JSON patch (RFC 6902), what of strategic merge can be done
//! without schemas, and server-side apply as a merge. A patch that would be misunderstood is refused.

use serde_json::Value;

use super::kinds::Kind;
use super::status::ApiError;

/// A patch, parsed.
#[derive(Debug)]
pub(super) enum Patch {
    /// RFC 7396.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// Maps merge; lists of known merge keys too; directives are refused.
    Strategic(Value),
    /// The object as one manager wants it: creates or merges.
    Apply(Value),
}

impl Patch {
    /// Parses a patch by its content type.
    ///
    /// # Errors
    /// An unsupported media type, or a body that is none.
    pub(super) fn parse(kind: &Kind, content_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        match media_type {
            "application/merge-patch+json" => Ok(Self::Merge(json(body)?)),
            "application/json-patch+json" => serde_json::from_slice(body)
                .map(Self::Json)
                .map_err(|error| ApiError::BadRequest(format!("not a JSON patch: {error}"))),
            "application/strategic-merge-patch+json" if kind.custom() => Err(ApiError::UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                    .into(),
            )),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(json(body)?)),
            "application/apply-patch+yaml" | "application/apply-patch+json" => {
                Ok(Self::Apply(super::body::parse(body)?))
            }
            other => Err(ApiError::UnsupportedMediaType(format!(
                "patches of type {other:?} are not supported"
            ))),
        }
    }

    /// The object with the patch applied.
    ///
    /// # Errors
    /// When the patch does not fit the object.
    pub(super) fn apply(&self, existing: &Value) -> Result<Value, ApiError> {
        let mut object = existing.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Json(patch) => json_patch::patch(&mut object, patch)
                .map_err(|error| ApiError::BadRequest(format!("the patch does not apply: {error}")))?,
            Self::Strategic(patch) | Self::Apply(patch) => strategic(&mut object, patch, "")?,
        }
        Ok(object)
    }
}

fn json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::BadRequest(format!("not JSON: {error}")))
}

/// By which field the elements of a list are told apart, as in Kubernetes' own types.
fn merge_key(field: &str) -> Option<&'static str> {
    Some(match field {
        "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes" => "name",
        "conditions" => "type",
        "ownerReferences" => "uid",
        "podIPs" | "hostIPs" => "ip",
        "volumeMounts" => "mountPath",
        _ => return None,
    })
}

fn strategic(target: &mut Value, patch: &Value, field: &str) -> Result<(), ApiError> {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = Value::Object(serde_json::Map::new());
            }
            for (name, value) in fields {
                if name.starts_with('$') {
                    return Err(ApiError::UnsupportedMediaType(format!(
                        "strategic merge directive {name} is not supported: use a merge patch"
                    )));
                }
                if value.is_null() {
                    if let Some(target) = target.as_object_mut() {
                        target.remove(name);
                    }
                } else {
                    strategic(&mut target[name.as_str()], value, name)?;
                }
            }
        }
        Value::Array(elements) => match merge_key(field) {
            Some(key) => merge_list(target, elements, key)?,
            None => *target = patch.clone(),
        },
        _ => *target = patch.clone(),
    }
    Ok(())
}

fn merge_list(target: &mut Value, elements: &[Value], key: &str) -> Result<(), ApiError> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(list) = target.as_array_mut() else {
        return Ok(());
    };
    for element in elements {
        if element[key].is_null() {
            return Err(ApiError::BadRequest(format!(
                "an element of the patch has no {key:?} to merge it by"
            )));
        }
        let index = match list.iter().position(|other| other[key] == element[key]) {
            Some(index) => index,
            None => {
                list.push(Value::Null);
                list.len() - 1
            }
        };
        strategic(&mut list[index], element, "")?;
    }
    Ok(())
}
