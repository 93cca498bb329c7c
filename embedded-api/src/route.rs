//! What a request asks for, from its method, path and query. Pure.

use std::collections::BTreeMap;

use crate::kinds::{self, Kind};
use crate::status::ApiError;

/// A path, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/healthz`, `/livez`, `/readyz` and what is below them.
    Health,
    /// `/version`.
    Version,
    /// Discovery and schemas: everything that says what there is.
    Discovery,
    /// Objects of a kind.
    Resource(Resource),
    /// A review: `tokenreviews`, `selfsubjectaccessreviews`, `selfsubjectreviews`.
    Review(&'static str),
}

/// Which objects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Their kind.
    pub kind: &'static Kind,
    /// The namespace, when the path names one.
    pub namespace: Option<String>,
    /// The name, when the path names one.
    pub name: Option<String>,
    /// The subresource, when the path names one.
    pub subresource: Option<String>,
}

/// Understands a path.
///
/// # Errors
/// Not found, for everything that this API does not hold.
pub(crate) fn parse(path: &str) -> Result<Route, ApiError> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let missing = || ApiError::NoSuchPath;
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Ok(Route::Health),
        ["version"] => Ok(Route::Version),
        ["" | "api" | "apis"] | ["api", "v1"] | ["apis", _] | ["apis", _, _] | ["openapi", ..] => {
            Ok(Route::Discovery)
        }
        ["apis", "authentication.k8s.io", "v1", "tokenreviews"] => Ok(Route::Review("tokenreviews")),
        ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => {
            Ok(Route::Review("selfsubjectreviews"))
        }
        ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => {
            Ok(Route::Review("selfsubjectaccessreviews"))
        }
        ["api", "v1", rest @ ..] => resource("", "v1", rest).ok_or_else(missing),
        ["apis", group, version, rest @ ..] => resource(group, version, rest).ok_or_else(missing),
        _ => Err(missing()),
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Route> {
    let find = |plural: &str| kinds::find(group, version, plural);
    let own = |text: &&str| (*text).to_owned();
    let (kind, namespace, name, subresource) = match rest {
        ["namespaces", namespace, plural, rest @ ..] if find(plural).is_some_and(|kind| kind.namespaced) => (
            find(plural)?,
            Some(namespace),
            rest.first(),
            rest.get(1..).unwrap_or_default(),
        ),
        [plural, rest @ ..] => {
            let kind = find(plural)?;
            if kind.namespaced && !rest.is_empty() {
                return None;
            }
            (kind, None, rest.first(), rest.get(1..).unwrap_or_default())
        }
        [] => return None,
    };
    if subresource.len() > 1
        || [namespace, name, subresource.first()]
            .iter()
            .flatten()
            .any(|part| part.is_empty())
    {
        return None;
    }
    Some(Route::Resource(Resource {
        kind,
        namespace: namespace.map(own),
        name: name.map(own),
        subresource: subresource.first().map(own),
    }))
}

/// A query's parameters; of repeated ones the last.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses what follows the question mark.
    #[must_use]
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Self(
            query
                .unwrap_or_default()
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// A parameter that is given and not empty.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether a parameter says `true` (or `1`).
    #[must_use]
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// Whether the request is a dry run.
    #[must_use]
    pub(crate) fn dry_run(&self) -> bool {
        self.get("dryRun") == Some("All")
    }
}

/// Percent-decoding with `+` for a space; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let escape = (byte == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        index += if escape.is_some() { 3 } else { 1 };
        decoded.push(escape.unwrap_or(if byte == b'+' { b' ' } else { byte }));
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
