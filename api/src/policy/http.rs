//! What a match asks of an HTTP request. A plane that reads no HTTP on a connection must never be more
//! permissive for it: see [`Http::matches`].

use std::borrow::Cow;

use super::evaluate::kind;
use super::{Action, Text};

/// An HTTP request, as policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Normalised path, without the query.
    pub path: &'a str,
    /// Host in lower case, without a port.
    pub host: &'a str,
    /// Header fields.
    pub headers: &'a dyn Headers,
}

/// What is known of what is asked on a connection.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Bytes, which nobody reads.
    Bytes,
    /// Requests, none of which was read yet: the question is whether any could be allowed.
    Unread,
    /// This request.
    Request(Request<'a>),
}

impl<'a> From<Request<'a>> for Asked<'a> {
    fn from(request: Request<'a>) -> Self {
        Self::Request(request)
    }
}

/// Header fields of a request.
pub trait Headers: std::fmt::Debug + Sync {
    /// The value of a field, those of several joined by commas (RFC 9110, section 5.3); none where there is none.
    /// `name` is in lower case.
    fn value(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// What is asked of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Http {
    pub(super) methods: Vec<Text>,
    pub(super) not_methods: Vec<Text>,
    pub(super) paths: Vec<Text>,
    pub(super) not_paths: Vec<Text>,
    pub(super) hosts: Vec<Text>,
    pub(super) not_hosts: Vec<Text>,
    pub(super) headers: Vec<Header>,
}

/// What is asked of a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) values: Vec<Text>,
    pub(super) not_values: Vec<Text>,
}

impl Http {
    /// Where nothing can be read, an Allow never matches and a Deny matches whatever was asked: what would
    /// have had to be inspected is refused. Of what is still to be read the most is hoped.
    pub(super) fn matches(&self, asked: &Asked<'_>, action: Action) -> bool {
        let request = match asked {
            Asked::Bytes => return action == Action::Deny,
            Asked::Unread => return action == Action::Allow,
            Asked::Request(request) => request,
        };
        kind(&self.methods, &self.not_methods, |text| {
            text.matches(request.method)
        }) && kind(&self.paths, &self.not_paths, |text| text.matches(request.path))
            && kind(&self.hosts, &self.not_hosts, |text| text.matches(request.host))
            && self.headers.iter().all(|header| header.matches(request))
    }
}

impl Header {
    /// A field that is not there has no value: only `notValues` can be true of it.
    fn matches(&self, request: &Request<'_>) -> bool {
        let value = request.headers.value(&self.name);
        kind(&self.values, &self.not_values, |text| {
            value.as_deref().is_some_and(|value| text.matches(value))
        })
    }
}
