//! HTTPRoute and GRPCRoute of the Gateway API (`gateway.networking.k8s.io/v1`), as users type them: what of the
//! specification is understood here. Anything else is refused by its field, never dropped: a route that lost
//! a match would take requests that were not meant for it.

mod filters;
#[cfg(test)]
mod tests;
mod validate;

use serde::{Deserialize, Serialize};

pub use filters::{
    Filter, FilterKind, Fraction, Header, HeaderChange, Mirror, PathChange, PathChangeKind, Redirect, Rewrite,
};
pub use validate::{duration, grpc_route, http_route};

/// The API group of routes and Gateways.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// A route's specification; rules are those of HTTP or of gRPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec<Rule> {
    /// What the route is attached to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Exact, or `*.suffix`.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// In order.
    #[serde(default = "Vec::new")]
    pub rules: Vec<Rule>,
}

/// Of an HTTPRoute.
pub type HttpSpec = RouteSpec<HttpRule>;
/// Of a GRPCRoute.
pub type GrpcSpec = RouteSpec<GrpcRule>;

/// What a route is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// Absent: the Gateway API's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Absent: `Gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Absent: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// A listener, or a named port of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// A port of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ParentRef {
    /// Whether it is a Service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.group.as_deref() == Some("") && self.kind.as_deref() == Some("Service")
    }
}

/// A rule of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// ORed; none: every request.
    #[serde(default)]
    pub matches: Vec<HttpMatch>,
    /// What is changed.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where requests go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    /// How long.
    #[serde(default)]
    pub timeouts: Option<Timeouts>,
    /// How often.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// A rule of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRule {
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// ORed; none: every request.
    #[serde(default)]
    pub matches: Vec<GrpcMatch>,
    /// What is changed.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where requests go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
}

/// ANDed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// The path.
    #[serde(default)]
    pub path: Option<PathMatch>,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query.
    #[serde(default)]
    pub query_params: Vec<ValueMatch>,
    /// The method.
    #[serde(default)]
    pub method: Option<Method>,
}

/// The methods that the Gateway API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl Method {
    /// As requests name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// ANDed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// Service and method.
    #[serde(default)]
    pub method: Option<GrpcMethodMatch>,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
}

/// A gRPC service, a method of it, or either.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMethodMatch {
    /// Exact unless it says otherwise.
    #[serde(default, rename = "type")]
    pub kind: MatchKind,
    /// The service, `package.Service`.
    #[serde(default)]
    pub service: Option<String>,
    /// The method.
    #[serde(default)]
    pub method: Option<String>,
}

/// How a path is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    /// The whole path.
    Exact,
    /// By whole segments.
    #[default]
    PathPrefix,
    /// The whole path, by a regular expression.
    RegularExpression,
}

/// A path match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// How.
    #[serde(default, rename = "type")]
    pub kind: PathKind,
    /// What.
    #[serde(default = "root")]
    pub value: String,
}

fn root() -> String {
    "/".into()
}

/// How a text is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchKind {
    /// The whole text.
    #[default]
    Exact,
    /// The whole text, by a regular expression.
    RegularExpression,
}

/// A header field or a parameter of the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// How.
    #[serde(default, rename = "type")]
    pub kind: MatchKind,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where copies of requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorRef {
    /// Absent: the core group.
    #[serde(default)]
    pub group: Option<String>,
    /// Absent: `Service`.
    #[serde(default)]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Absent: the route's.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Of a Service.
    #[serde(default)]
    pub port: Option<u16>,
}

/// Where requests go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// Absent: the core group.
    #[serde(default)]
    pub group: Option<String>,
    /// Absent: `Service`.
    #[serde(default)]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Absent: the route's.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Of a Service.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share; absent: 1.
    #[serde(default)]
    pub weight: Option<u32>,
    /// What is changed on the way to it.
    #[serde(default)]
    pub filters: Vec<Filter>,
}

impl BackendRef {
    /// As the reference that it is without weight and filters.
    #[must_use]
    pub fn target(&self) -> MirrorRef {
        MirrorRef {
            group: self.group.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            port: self.port,
        }
    }
}

impl MirrorRef {
    /// Whether it is a Service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.group.as_deref().unwrap_or_default().is_empty()
            && self.kind.as_deref().unwrap_or("Service") == "Service"
    }
}

/// How long a request may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// From its beginning to its end.
    #[serde(default)]
    pub request: Option<String>,
    /// Each attempt.
    #[serde(default)]
    pub backend_request: Option<String>,
}

/// When a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Statuses of responses.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// How often; absent: once.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// The least time before an attempt.
    #[serde(default)]
    pub backoff: Option<String>,
}
