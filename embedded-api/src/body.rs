//! Bodies of requests: bounded; JSON, YAML, or what little is read of protobuf.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::protobuf;
use crate::status::ApiError;

/// As much as Kubernetes takes.
const LIMIT: usize = 3 * 1024 * 1024;

/// Reads a body to its end.
///
/// # Errors
/// When it is too long, or the connection fails.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = Limited::new(Body::new(body), LIMIT).collect().await;
    let collected =
        collected.map_err(|error| ApiError::BadRequest(format!("cannot read the body: {error}")))?;
    Ok(collected.to_bytes())
}

/// A body of whichever format it is.
///
/// # Errors
/// When it is of none.
pub(crate) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    if body.starts_with(protobuf::MAGIC) {
        return protobuf::parse(body);
    }
    let json = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let text = std::str::from_utf8(body).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    if text.trim_start().starts_with('{') {
        return Err(ApiError::BadRequest(format!("not JSON: {json}")));
    }
    serde_saphyr::from_str(text)
        .map_err(|error| ApiError::BadRequest(format!("neither JSON nor YAML: {error}")))
}
