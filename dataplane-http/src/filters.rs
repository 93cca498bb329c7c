//! What a rule does to requests and responses: headers, redirects, rewrites, mirrors. Pure; what is asked for is
//! validated when the route is compiled, so that nothing can fail while requests pass.

#[cfg(test)]
mod tests;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use trefoil_api::path;
use trefoil_api::proto::trefoil::v1 as message;

use crate::head::is_ours;
use crate::routing::{Problem, each, port};

/// The filters of a rule, in the order in which they work.
#[derive(Debug, Default)]
pub struct Filters {
    /// Changes of request headers.
    pub request: Vec<HeaderChange>,
    /// Changes of response headers.
    pub response: Vec<HeaderChange>,
    /// Answers instead of forwarding.
    pub redirect: Option<Redirect>,
    /// Changes what is asked for.
    pub rewrite: Option<Rewrite>,
    /// Who gets a copy.
    pub mirrors: Vec<Mirror>,
}

/// A change of headers.
#[derive(Clone, Debug, Default)]
pub struct HeaderChange {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

/// A change of a path.
#[derive(Clone, Debug)]
pub enum PathChange {
    /// All of it.
    Full(String),
    /// The prefix that the request matched, by one without a slash at its end.
    Prefix(String),
}

/// An answer that leads elsewhere.
#[derive(Debug)]
pub struct Redirect {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<PathChange>,
    status: StatusCode,
}

/// A change of what is asked for.
#[derive(Debug)]
pub struct Rewrite {
    /// The host that the application sees.
    pub host: Option<HeaderValue>,
    /// The path that it sees.
    pub path: Option<PathChange>,
}

/// A copy of requests for another service, whose answer nobody gets.
#[derive(Debug)]
pub struct Mirror {
    /// Key of the service; none: there is no such backend.
    pub service: Option<String>,
    /// The service's port.
    pub port: u16,
    /// Of `of`, so many requests are copied.
    pub share: u32,
    /// See `share`; not 0.
    pub of: u32,
}

impl Filters {
    /// Whether a filter replaces the prefix that a request matched.
    pub(crate) fn needs_prefix(&self) -> bool {
        let paths = [
            self.redirect.as_ref().and_then(|redirect| redirect.path.as_ref()),
            self.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref()),
        ];
        paths
            .into_iter()
            .flatten()
            .any(|path| matches!(path, PathChange::Prefix(_)))
    }
}

impl HeaderChange {
    /// Changes `headers`: set, then add, then remove.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

impl PathChange {
    /// `path`, which matched `prefix`, changed. What comes out is normalised.
    #[must_use]
    pub fn apply(&self, path: &str, prefix: Option<&str>) -> String {
        match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(by) => {
                let rest = path.strip_prefix(prefix.unwrap_or_default()).unwrap_or(path);
                match (by.as_str(), rest) {
                    ("", "") => "/".to_owned(),
                    (by, rest) => format!("{by}{rest}"),
                }
            }
        }
    }
}

impl Redirect {
    /// The status and the value of `Location`, for a request that came to `host` at `port`.
    #[must_use]
    pub fn answer(&self, host: &str, port: u16, uri: &Uri, prefix: Option<&str>) -> (StatusCode, String) {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let host = self.host.as_deref().unwrap_or(host);
        let usual = if scheme == "https" { 443 } else { 80 };
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => port,
            // With another scheme, the port that is the scheme's own.
            (None, Some(_)) => usual,
            (None, None) => port,
        };
        let path = match &self.path {
            Some(change) => change.apply(uri.path(), prefix),
            None => uri.path().to_owned(),
        };
        let mut location = format!("{scheme}://{host}");
        if port != usual {
            location.push_str(&format!(":{port}"));
        }
        location.push_str(&path);
        if let Some(query) = uri.query() {
            location.push('?');
            location.push_str(query);
        }
        (self.status, location)
    }
}

/// Understands filters.
pub(crate) fn compile(from: &[message::HttpRouteFilter], field: &str) -> Result<Filters, Problem> {
    use message::http_route_filter::Kind;
    let mut filters = Filters::default();
    for (index, filter) in from.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let twice = || Err((at.clone(), "is there twice".to_owned()));
        match &filter.kind {
            Some(Kind::RequestHeaders(change)) => {
                filters
                    .request
                    .push(headers(change, &format!("{at}.request_headers"))?);
            }
            Some(Kind::ResponseHeaders(change)) => {
                filters
                    .response
                    .push(headers(change, &format!("{at}.response_headers"))?);
            }
            Some(Kind::Redirect(_)) if filters.redirect.is_some() => return twice(),
            Some(Kind::Redirect(from)) => filters.redirect = Some(redirect(from, &format!("{at}.redirect"))?),
            Some(Kind::Rewrite(_)) if filters.rewrite.is_some() => return twice(),
            Some(Kind::Rewrite(from)) => filters.rewrite = Some(rewrite(from, &format!("{at}.rewrite"))?),
            Some(Kind::Mirror(from)) => filters.mirrors.push(mirror(from, &format!("{at}.mirror"))?),
            None => return Err((at, "is of no kind that is known here".into())),
        }
    }
    Ok(filters)
}

fn headers(from: &message::HttpHeaderChange, at: &str) -> Result<HeaderChange, Problem> {
    let pair = |one: &message::HttpHeader, at: &str| {
        let value = HeaderValue::from_str(&one.value).map_err(|_| {
            (
                format!("{at}.value"),
                "cannot be the value of a header".to_owned(),
            )
        })?;
        Ok((header_name(&one.name, &format!("{at}.name"))?, value))
    };
    Ok(HeaderChange {
        set: each(&from.set, &format!("{at}.set"), pair)?,
        add: each(&from.add, &format!("{at}.add"), pair)?,
        remove: each(&from.remove, &format!("{at}.remove"), |name, at| {
            header_name(name, at)
        })?,
    })
}

/// Headers that say how a message is framed, or who the client is, are not a route's to change.
fn header_name(from: &str, at: &str) -> Result<HeaderName, Problem> {
    let name = HeaderName::from_bytes(from.as_bytes())
        .map_err(|_| (at.to_owned(), format!("{from:?} is no name of a header")))?;
    let framing = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
    ];
    if framing.contains(&name) || is_ours(&name) {
        return Err((at.to_owned(), format!("{name} may not be changed by a route")));
    }
    Ok(name)
}

fn path_change(from: &message::HttpPathChange, at: &str) -> Result<PathChange, Problem> {
    use message::http_path_change::Kind;
    let normal = |path: &str, name: &str| match path::normalize(path) {
        Ok(normal) => Ok(normal.into_owned()),
        Err(refused) => Err((format!("{at}.{name}"), refused.to_string())),
    };
    match &from.kind {
        Some(Kind::Full(full)) => Ok(PathChange::Full(normal(full, "full")?)),
        Some(Kind::Prefix(prefix)) => {
            // An empty one takes the prefix away, as `/` does.
            let mut prefix = match prefix.as_str() {
                "" => String::new(),
                prefix => normal(prefix, "prefix")?,
            };
            if prefix.ends_with('/') {
                prefix.pop();
            }
            Ok(PathChange::Prefix(prefix))
        }
        None => Err((at.to_owned(), "is of no kind that is known here".into())),
    }
}

fn redirect(from: &message::HttpRedirect, at: &str) -> Result<Redirect, Problem> {
    let status = match from.status {
        0 => StatusCode::FOUND,
        code @ (301 | 302 | 303 | 307 | 308) => {
            StatusCode::from_u16(code as u16).unwrap_or(StatusCode::FOUND)
        }
        code => return Err((format!("{at}.status"), format!("{code} does not redirect"))),
    };
    let scheme = match from.scheme.as_str() {
        "" => None,
        "http" | "https" => Some(from.scheme.clone()),
        other => {
            return Err((
                format!("{at}.scheme"),
                format!("{other:?} is neither http nor https"),
            ));
        }
    };
    if !from.host.is_empty() {
        host(&from.host, &format!("{at}.host"))?;
    }
    let port = port(from.port, &format!("{at}.port"))?;
    Ok(Redirect {
        scheme,
        host: (!from.host.is_empty()).then(|| from.host.clone()),
        port: (port > 0).then_some(port),
        path: match &from.path {
            Some(path) => Some(path_change(path, &format!("{at}.path"))?),
            None => None,
        },
        status,
    })
}

fn rewrite(from: &message::HttpRewrite, at: &str) -> Result<Rewrite, Problem> {
    Ok(Rewrite {
        host: match from.host.as_str() {
            "" => None,
            name => Some(host(name, &format!("{at}.host"))?),
        },
        path: match &from.path {
            Some(path) => Some(path_change(path, &format!("{at}.path"))?),
            None => None,
        },
    })
}

fn host(from: &str, at: &str) -> Result<HeaderValue, Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match HeaderValue::from_str(from) {
        Ok(value) if from.bytes().all(allowed) => Ok(value),
        _ => Err((at.to_owned(), format!("{from:?} is no hostname"))),
    }
}

fn mirror(from: &message::HttpMirror, at: &str) -> Result<Mirror, Problem> {
    let (share, of) = match (from.numerator, from.denominator) {
        (0, 0) => (1, 1),
        (share, 0) => (share, 100),
        share => share,
    };
    if share > of {
        return Err((format!("{at}.numerator"), "is more than the denominator".into()));
    }
    let backend = from.backend.as_ref();
    let backend = backend.ok_or_else(|| (format!("{at}.backend"), "is absent".to_owned()))?;
    Ok(Mirror {
        service: (!backend.service.is_empty()).then(|| backend.service.clone()),
        port: port(backend.port, &format!("{at}.backend.port"))?,
        share,
        of,
    })
}
