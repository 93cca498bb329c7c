//! What a match asks of a request's head, and how specific it is.

use std::borrow::Cow;
use std::cmp::Reverse;

use http::{HeaderMap, HeaderName};
use regex::Regex;

use crate::head::field;

/// The head of a request, as routes see it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Lower case, without a port.
    pub host: &'a str,
    /// Normalised.
    pub path: &'a str,
    /// Without the question mark.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// Header fields.
    pub headers: &'a HeaderMap,
}

/// Which hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostPattern {
    Any,
    Exact(String),
    /// What follows the asterisk, from its dot.
    Suffix(String),
}

impl HostPattern {
    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }

    /// Characters of a name without wildcard, then characters of a name.
    pub(super) fn rank(&self) -> (usize, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Exact(exact) => (exact.len(), exact.len()),
            Self::Suffix(suffix) => (0, suffix.len() + 1),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum PathMatch {
    Exact(String),
    /// Without a slash at its end: empty is every path.
    Prefix(String),
    Regex(Regex),
}

impl PathMatch {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// Exact ones first, then regular expressions (else one beside a catch-all would never be asked), then
    /// prefixes; the longer of two.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(exact) => (2, exact.len()),
            Self::Regex(regex) => (1, regex.as_str().len()),
            Self::Prefix(prefix) => (0, prefix.len()),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum ValueMatch {
    Exact(String),
    Regex(Regex),
}

impl ValueMatch {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// All of it must be true of a request.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub(super) path: PathMatch,
    pub(super) method: Option<String>,
    pub(super) headers: Vec<(HeaderName, ValueMatch)>,
    pub(super) query: Vec<(String, ValueMatch)>,
}

/// Smaller goes first.
pub(super) type Rank = (
    Reverse<(u8, usize)>,
    Reverse<bool>,
    Reverse<usize>,
    Reverse<usize>,
);

impl Match {
    pub(super) fn matches(&self, head: &RequestHead<'_>) -> bool {
        self.path.matches(head.path)
            && self.method.as_ref().is_none_or(|method| method == head.method)
            && self.headers.iter().all(|(name, value)| {
                field(head.headers, name.as_str()).is_some_and(|found| value.matches(&found))
            })
            && self
                .query
                .iter()
                .all(|(name, value)| parameter(head.query, name).is_some_and(|found| value.matches(&found)))
    }

    pub(super) fn rank(&self) -> Rank {
        (
            Reverse(self.path.rank()),
            Reverse(self.method.is_some()),
            Reverse(self.headers.len()),
            Reverse(self.query.len()),
        )
    }

    /// The prefix that a request matched.
    pub(super) fn prefix(&self) -> Option<&str> {
        match &self.path {
            PathMatch::Prefix(prefix) => Some(prefix),
            PathMatch::Exact(_) | PathMatch::Regex(_) => None,
        }
    }
}

/// The first value of a query parameter, decoded.
pub(super) fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

/// As forms are encoded: `+` is a space. What is no escape is itself.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Both are below 16.
                plain.push((high << 4 | low) as u8);
                at += 2;
            }
            (b'+', ..) => plain.push(b' '),
            (other, ..) => plain.push(other),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}
