//! What a request's head says, in one reading: one host, one normalised path, and no field that was meant for
//! another hop. What can be read in two ways is refused, never repaired by a guess.

use std::borrow::Cow;

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri, Version};
use trefoil_api::path::{PathRefused, normalize};
use trefoil_api::policy;

mod bounds;
#[cfg(test)]
mod tests;

use bounds::is_large;
pub(crate) use bounds::says_its_length;
pub use bounds::{FIELDS, SIZE};

/// The client's identity, for the application.
pub const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// What the mesh says to itself.
const INTERNAL: &str = "trefoil-";

/// Why a request's head is refused: 400, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadRefused {
    /// A request for a tunnel: 405.
    #[error("CONNECT is not served here")]
    Connect,
    /// A request for a tunnel of another protocol than WebSockets: 501.
    #[error("of extended CONNECT, only WebSockets are served here")]
    Protocol,
    /// No host, and none is allowed to be missing.
    #[error("the request names no host")]
    NoHost,
    /// More than one `Host`.
    #[error("the request has more than one Host")]
    SeveralHosts,
    /// `Host` and the request's target name different ones.
    #[error("Host and the request's target name different hosts")]
    HostMismatch,
    /// No host that is understood.
    #[error("the request's host is not valid")]
    InvalidHost,
    /// More than one length, or none that is a number; an encoding that is not taken off here.
    #[error("the request does not say its length in one way")]
    Length,
    /// More fields than [`FIELDS`], or longer ones than [`SIZE`]: 431.
    #[error("the request's head is too large")]
    TooLarge,
    /// Not the time that a call has.
    #[error("the request's grpc-timeout is not valid")]
    Timeout,
    /// See [`PathRefused`].
    #[error("{0}")]
    Path(#[from] PathRefused),
}

/// The head of a request that was understood. Its path is in the request's own URI, normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// In lower case, without a port and without a dot at its end.
    pub host: String,
    /// As the client wrote it, with its port.
    pub authority: HeaderValue,
}

/// Reads a head. Its URI becomes the normalised path with the query; `Host` and the fields for this hop are taken
/// out. `dialled` is the host of those who may leave it out, by HTTP/1.0.
pub fn read(parts: &mut Parts, dialled: &str) -> Result<Head, HeadRefused> {
    if is_large(parts) {
        return Err(HeadRefused::TooLarge);
    }
    if !says_its_length(&parts.headers) {
        return Err(HeadRefused::Length);
    }
    if parts.method == Method::CONNECT {
        return Err(HeadRefused::Connect);
    }
    if parts.uri.scheme().is_none() && parts.uri.authority().is_some() {
        // A form that only CONNECT has (RFC 9112, section 3.2.3).
        return Err(PathRefused::NotAbsolute.into());
    }
    let head = host(parts, dialled)?;
    let whole_server = parts.method == Method::OPTIONS && parts.uri.path() == "*";
    if !whole_server {
        parts.uri = normal(&parts.uri)?;
    }
    parts.headers.remove(header::HOST);
    one_cookie(&mut parts.headers);
    Ok(head)
}

/// The path, normalised, and the query as it was.
fn normal(uri: &Uri) -> Result<Uri, PathRefused> {
    // An authority without a path is its root (RFC 9110, section 4.2.3).
    let given = if uri.path().is_empty() { "/" } else { uri.path() };
    let path = normalize(given)?;
    if uri.authority().is_none() && matches!(path, Cow::Borrowed(_)) {
        return Ok(uri.clone());
    }
    Ok(with_path(&path, uri.query()))
}

/// A URI of a path that was normalised, and a query.
pub(crate) fn with_path(path: &str, query: Option<&str>) -> Uri {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // Both parts are of characters that were accepted before; should a new version of the library think otherwise,
    // nothing is better than the wrong path.
    PathAndQuery::try_from(target).map_or_else(|_| Uri::from_static("/"), Uri::from)
}

fn host(parts: &Parts, dialled: &str) -> Result<Head, HeadRefused> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(HeadRefused::SeveralHosts);
    }
    let field = match field {
        Some(field) => Some(authority(field.as_bytes())?),
        None => None,
    };
    let target = match parts.uri.authority() {
        Some(target) => Some(authority(target.as_str().as_bytes())?),
        None => None,
    };
    let named = match (target, field) {
        (Some(target), Some(field)) if !same(&target, &field) => return Err(HeadRefused::HostMismatch),
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) if parts.version == Version::HTTP_10 => authority(dialled.as_bytes())?,
        (None, None) => return Err(HeadRefused::NoHost),
    };
    let bare = named.host().trim_end_matches('.').to_ascii_lowercase();
    if bare.is_empty() {
        return Err(HeadRefused::InvalidHost);
    }
    let written = HeaderValue::from_str(named.as_str()).map_err(|_| HeadRefused::InvalidHost)?;
    Ok(Head {
        host: bare,
        authority: written,
    })
}

fn authority(from: &[u8]) -> Result<Authority, HeadRefused> {
    let parsed = Authority::try_from(from).map_err(|_| HeadRefused::InvalidHost)?;
    let text = parsed.as_str();
    let host = parsed.host();
    let rest = text.strip_prefix(host).ok_or(HeadRefused::InvalidHost)?;
    let port = rest.is_empty()
        || rest
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let inside = host.trim_start_matches('[').trim_end_matches(']');
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (bracketed && byte == b':');
    match port && !inside.is_empty() && inside.bytes().all(allowed) {
        true => Ok(parsed),
        false => Err(HeadRefused::InvalidHost),
    }
}

/// The usual port is the same as none.
fn same(one: &Authority, other: &Authority) -> bool {
    let port = |of: &Authority| of.port_u16().unwrap_or(80);
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

/// HTTP/2 may split cookies, HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn one_cookie(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(header::COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let joined: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&joined.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// What an upgrade is asked for, or answered with.
#[must_use]
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(header::UPGRADE)?;
    let asked = connection_names(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    // HTTP/2 inside of it would be requests that nobody here reads.
    let of_http = wanted
        .as_bytes()
        .to_ascii_lowercase()
        .windows(3)
        .any(|part| part == b"h2c");
    (asked && !of_http).then(|| wanted.clone())
}

fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes out the fields that are for one hop only (RFC 9110, section 7.6.1). Whether trailers may follow stays said:
/// gRPC asks for it.
pub fn strip_hop(headers: &mut HeaderMap) {
    const HOP: [HeaderName; 7] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ];
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value
            .as_bytes()
            .to_ascii_lowercase()
            .windows(8)
            .any(|part| part == b"trailers")
    });
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = connection_names(headers)
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether a field is the mesh's own to write: nobody else's value of it is believed. Nor is that of one which some
/// applications cannot tell from it: to CGI and its like `_` is `-`.
#[must_use]
pub fn is_ours(name: &HeaderName) -> bool {
    let begins = |ours: &str| {
        let name = name.as_str().as_bytes();
        let alike = |(byte, own): (&u8, u8)| *byte == own || (*byte == b'_' && own == b'-');
        name.len() >= ours.len() && name.iter().zip(ours.bytes()).all(alike)
    };
    let certificate = CLIENT_CERTIFICATE;
    let certificate = certificate.as_str();
    begins(INTERNAL) || (name.as_str().len() == certificate.len() && begins(certificate))
}

/// Takes out what only the mesh may say.
pub fn strip_ours(headers: &mut HeaderMap) {
    // As a rule there is none, and then nothing is copied.
    while let Some(name) = headers.keys().find(|name| is_ours(name)).cloned() {
        if let Entry::Occupied(entry) = headers.entry(name) {
            entry.remove_entry_mult();
        }
    }
}

/// The value of a field, those of several joined by commas (RFC 9110, section 5.3).
pub(crate) fn field<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter();
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    Some(values.fold(first, |joined, value| {
        let mut joined = joined.into_owned();
        joined.push(',');
        joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
        Cow::Owned(joined)
    }))
}

/// Header fields, as policy asks for them.
#[derive(Debug)]
pub struct Fields<'h>(pub &'h HeaderMap);

impl policy::Headers for Fields<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        field(self.0, name)
    }
}
