//! Refusals as Kubernetes words them: a `Status` object with code, reason and message.

use axum::body::Body;
use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::store::{Expired, StoreError};

/// A field of an object and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path, such as `spec.rules[0].to[1].ports[0]`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldError {
    /// An error of a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No such path or kind.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// No such object.
    #[error("{} \"{name}\" not found", kind.resource)]
    NotFound {
        /// Its kind.
        kind: &'static Kind,
        /// Its name.
        name: String,
    },
    /// There is one of that name.
    #[error("{} \"{name}\" already exists", kind.resource)]
    AlreadyExists {
        /// Its kind.
        kind: &'static Kind,
        /// Its name.
        name: String,
    },
    /// Somebody else changed it first.
    #[error("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.resource)]
    Conflict {
        /// Its kind.
        kind: &'static Kind,
        /// Its name.
        name: String,
        /// What does not match.
        why: String,
    },
    /// Fields are malformed.
    #[error("{} \"{name}\" is invalid: {}", kind.kind, join(causes))]
    Invalid {
        /// Its kind.
        kind: &'static Kind,
        /// Its name.
        name: String,
        /// The fields.
        causes: Vec<FieldError>,
    },
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// Who is the caller?
    #[error("Unauthorized")]
    Unauthorized,
    /// The resource version is not known any more.
    #[error("{0}")]
    Expired(#[from] Expired),
    /// Not that verb on that path.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// Not that media type.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The store refuses.
    #[error("{0}")]
    Store(#[from] StoreError),
}

fn join(causes: &[FieldError]) -> String {
    let causes: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    match causes.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl ApiError {
    /// The HTTP status.
    #[must_use]
    pub(crate) fn code(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::AlreadyExists { .. } | Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Expired(_) => StatusCode::GONE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchPath | Self::NotFound { .. } => "NotFound",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::Conflict { .. } => "Conflict",
            Self::Invalid { .. } => "Invalid",
            Self::BadRequest(_) => "BadRequest",
            Self::Forbidden(_) => "Forbidden",
            Self::Unauthorized => "Unauthorized",
            Self::Expired(_) => "Expired",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::Store(_) => "InternalError",
        }
    }

    fn details(&self) -> Value {
        match self {
            Self::NotFound { kind, name }
            | Self::AlreadyExists { kind, name }
            | Self::Conflict { kind, name, .. } => {
                json!({ "name": name, "group": kind.group, "kind": kind.plural })
            }
            Self::Invalid { kind, name, causes } => {
                let causes: Vec<Value> = causes
                    .iter()
                    .map(|cause| {
                        json!({ "reason": "FieldValueInvalid", "message": cause.message, "field": cause.field })
                    })
                    .collect();
                json!({ "name": name, "group": kind.group, "kind": kind.kind, "causes": causes })
            }
            _ => json!({}),
        }
    }

    /// The `Status` object.
    #[must_use]
    pub(crate) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "reason": self.reason(), "details": self.details(),
            "code": self.code().as_u16(),
        })
    }

    /// The answer.
    #[must_use]
    pub(crate) fn response(&self) -> Response<Body> {
        respond(self.code(), &self.status())
    }
}

/// A JSON answer.
#[must_use]
pub(crate) fn respond(code: StatusCode, value: &Value) -> Response<Body> {
    respond_text(code, value.to_string())
}

/// An answer of JSON that is already written.
#[must_use]
pub(crate) fn respond_text(code: StatusCode, json: String) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}
