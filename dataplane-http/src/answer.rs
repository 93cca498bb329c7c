//! What is answered to a request that does not reach an application: a status, the reason and whose fault it is,
//! in the protocol of the one who asked.

use ::bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use trefoil_dataplane_core::authorize::Denied;
use trefoil_dataplane_core::telemetry::{Flag, Layer};

use crate::body::Body;
use crate::head::HeadRefused;
use crate::seam::OpenFailure;

#[cfg(test)]
mod tests;

/// Why a request does not reach an application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its head.
    #[error("{0}")]
    Head(#[from] HeadRefused),
    /// It is not what HTTP allows, or what can be read in one way only.
    #[error("the request is not valid HTTP: {0}")]
    Malformed(String),
    /// Its head has too many fields, or too long ones.
    #[error("the request's head is too large")]
    TooLarge,
    /// The service has routes, none of which is for it.
    #[error("no route of {0} is for this request")]
    NoRoute(String),
    /// The rule has no backend that there is.
    #[error("{0} leads to a backend that there is not, or that it may not lead to")]
    NoBackend(String),
    /// What was dialled is neither a service nor a workload that is known.
    #[error("what was dialled is not known here")]
    Unknown,
    /// No endpoint may be chosen.
    #[error("service {0} has no healthy endpoint")]
    NoEndpoint(String),
    /// Policy.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// No connection to the endpoint.
    #[error("{0}")]
    Open(#[from] OpenFailure),
    /// The endpoint broke the connection before it had answered.
    #[error("the application broke the connection: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("no answer within {0}")]
    TimedOut(&'static str),
}

impl Refusal {
    /// What is answered.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Head(HeadRefused::Connect) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Head(HeadRefused::Protocol) => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge | Self::Head(HeadRefused::TooLarge) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Head(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute(_) => StatusCode::NOT_FOUND,
            Self::NoBackend(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Denied(Denied::Policy(_) | Denied::Network(_)) => StatusCode::FORBIDDEN,
            Self::Open(failure) if failure.flag == Flag::Deny => StatusCode::FORBIDDEN,
            Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unknown
            | Self::NoEndpoint(_)
            | Self::Denied(Denied::NotSynced | Denied::Closed(_))
            | Self::Open(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The same as gRPC says it (its "HTTP to gRPC Status Code Mapping"), but a deadline is one.
    #[must_use]
    pub fn grpc_status(&self) -> u16 {
        match self.status().as_u16() {
            400 => 13,
            403 => 7,
            404 | 405 | 501 => 12,
            504 => 4,
            // A backend that is missing is away (Gateway API, GRPCRouteRule).
            500 | 502 | 503 => 14,
            _ => 2,
        }
    }

    /// The value of `response_flags`.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Head(_) | Self::Malformed(_) | Self::TooLarge => "DPE",
            Self::NoRoute(_) | Self::NoBackend(_) | Self::Unknown => "NR",
            Self::NoEndpoint(_) => "UH",
            Self::Denied(_) => Flag::Deny.as_str(),
            Self::Open(failure) => match failure.flag {
                Flag::None | Flag::Connect => "UF",
                other => other.as_str(),
            },
            Self::Broken(_) => "UC",
            Self::TimedOut(_) => "UT",
        }
    }

    /// Whose fault it is, seen from `plane`.
    #[must_use]
    pub fn layer(&self, plane: Layer) -> Layer {
        match self {
            Self::Denied(_) => Layer::Policy,
            Self::Open(failure) => failure.layer,
            Self::NoEndpoint(_) | Self::Broken(_) | Self::TimedOut(_) => Layer::Application,
            _ => plane,
        }
    }

    /// The policy that is to blame, where it is one.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::Denied(denied) => denied.policy(),
            _ => None,
        }
    }

    /// The answer, in the words of gRPC where `grpc`.
    #[must_use]
    pub(crate) fn answer(&self, plane: Layer, grpc: bool) -> Response<Body> {
        let text = format!("{}: {self}", self.layer(plane).as_str());
        if grpc {
            return self.of_grpc(&text);
        }
        let mut response = answer(self.status(), format!("{text}\n"));
        if self.status() == StatusCode::METHOD_NOT_ALLOWED {
            let all = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");
            response.headers_mut().insert(header::ALLOW, all);
        }
        response
    }

    fn of_grpc(&self, text: &str) -> Response<Body> {
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        self.say(text, headers);
        response
    }

    /// What ends a gRPC call whose response has begun.
    #[must_use]
    pub(crate) fn trailers(&self, plane: Layer) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        self.say(&format!("{}: {self}", self.layer(plane).as_str()), &mut trailers);
        trailers
    }

    fn say(&self, text: &str, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.grpc_status()));
        if let Ok(message) = HeaderValue::try_from(escaped(text)) {
            headers.insert(GRPC_MESSAGE, message);
        }
    }
}

/// The status of a gRPC call.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// An answer for people.
pub(crate) fn answer(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Whether a request is a gRPC call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// As `grpc-message` is (gRPC over HTTP/2, Percent-Encoded).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
