//! The patch formats: JSON merge patch (RFC 7396), JSON patch (RFC 6902), strategic merge, and server-side apply
//! as a merge that keeps no account of owners. A patch that would be misunderstood is refused.

use serde_json::Value;

use crate::kinds::Kind;
use crate::status::ApiError;
use crate::strategic;

/// A patch, parsed.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 7396.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// See [`strategic`].
    Strategic(Value),
    /// The object as one manager wants it: creates or merges.
    Apply(Value),
}

impl Patch {
    /// Parses a patch by its content type.
    ///
    /// # Errors
    /// An unsupported media type, or a body that is none.
    pub(crate) fn parse(kind: &Kind, content_type: &str, body: &[u8]) -> Result<Self, ApiError> {
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
                Ok(Self::Apply(crate::body::parse(body)?))
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
    pub(crate) fn apply(&self, kind: &Kind, existing: &Value) -> Result<Value, ApiError> {
        let mut object = existing.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Json(patch) => json_patch::patch(&mut object, patch)
                .map_err(|error| ApiError::BadRequest(format!("the patch does not apply: {error}")))?,
            Self::Strategic(patch) | Self::Apply(patch) => strategic::merge(kind, &mut object, patch)?,
        }
        Ok(object)
    }
}

fn json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::BadRequest(format!("not JSON: {error}")))
}
