//! The words of policies: patterns, ranges, ports, keys. Each is understood or refused, never bent.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Identity;
use crate::identity::is_name;
use crate::path::{Part, comparable};

/// A pattern for a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextPattern {
    /// The text.
    Exact(String),
    /// `text*`.
    Prefix(String),
    /// `*text`.
    Suffix(String),
    /// `*`: any text but the empty one.
    Present,
}

/// What a `when` key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `source.principal`.
    Principal,
    /// `source.namespace`.
    Namespace,
    /// `source.ip`.
    SourceAddress,
    /// `destination.ip`.
    DestinationAddress,
    /// `destination.port`.
    DestinationPort,
    /// Something that only a proxy that reads HTTP knows.
    Http,
}

/// A value that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Of principals, namespaces and HTTP's.
    Text(TextPattern),
    /// Of addresses.
    Range(IpNet),
    /// Of ports.
    Port(u16),
}

impl Subject {
    /// Reads a value of this subject.
    pub fn term(self, value: &str) -> Result<Term, String> {
        match self {
            Self::Principal => principal_pattern(value).map(Term::Text),
            Self::Namespace | Self::Http => text_pattern(value).map(Term::Text),
            Self::SourceAddress | Self::DestinationAddress => address_range(value).map(Term::Range),
            Self::DestinationPort => port_number(&IntOrString::String(value.into())).map(Term::Port),
        }
    }
}

/// Reads `exact`, `prefix*`, `*suffix` or `*`.
pub fn text_pattern(value: &str) -> Result<TextPattern, String> {
    if value.is_empty() {
        return Err("an empty text matches nobody or everybody".into());
    }
    if value.starts_with("spiffe://") {
        return Err(format!("{value:?}: principals are written without spiffe://"));
    }
    let inner = |text: &str| {
        if text.contains('*') {
            Err(format!("{value:?}: an asterisk is understood only first or last"))
        } else {
            Ok(text.to_owned())
        }
    };
    if value == "*" {
        return Ok(TextPattern::Present);
    }
    if let Some(suffix) = value.strip_prefix('*') {
        return inner(suffix).map(TextPattern::Suffix);
    }
    if let Some(prefix) = value.strip_suffix('*') {
        return inner(prefix).map(TextPattern::Prefix);
    }
    inner(value).map(TextPattern::Exact)
}

/// Reads a pattern for paths: as paths are compared, in their one spelling.
pub fn path_pattern(value: &str) -> Result<TextPattern, String> {
    let pattern = text_pattern(value)?;
    match &pattern {
        TextPattern::Exact(text) => comparable(text, Part::Whole)?,
        TextPattern::Prefix(text) => comparable(text, Part::Beginning)?,
        TextPattern::Suffix(text) => comparable(text, Part::End)?,
        TextPattern::Present => {}
    }
    Ok(pattern)
}

/// What principals are made of, name by name; those that are always the same.
const PRINCIPAL: [Option<&str>; 5] = [None, Some("ns"), None, Some("sa"), None];

/// Reads a pattern for principals. One that no principal can match is refused: a Deny that is spelt wrongly
/// would deny nobody.
pub fn principal_pattern(value: &str) -> Result<TextPattern, String> {
    let pattern = text_pattern(value)?;
    let possible = match &pattern {
        TextPattern::Exact(text) => format!("spiffe://{text}").parse::<Identity>().is_ok(),
        TextPattern::Prefix(text) => fits(text.split('/'), PRINCIPAL.iter(), |part, name| {
            name.starts_with(part)
        }),
        TextPattern::Suffix(text) => fits(text.rsplit('/'), PRINCIPAL.iter().rev(), |part, name| {
            name.ends_with(part)
        }),
        TextPattern::Present => true,
    };
    if possible {
        return Ok(pattern);
    }
    Err(format!(
        "{value:?} matches no principal there can be: TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
    ))
}

/// Whether parts are those of principals, as far as they go. The last is a piece of a name.
fn fits<'f>(
    parts: impl Iterator<Item = &'f str>,
    form: impl Iterator<Item = &'f Option<&'static str>>,
    is_piece: fn(&str, &str) -> bool,
) -> bool {
    let mut parts = parts.peekable();
    for name in form {
        let Some(part) = parts.next() else { return true };
        let last = parts.peek().is_none();
        let fits = match name {
            Some(name) if last => is_piece(part, name),
            Some(name) => part == *name,
            None => is_name(part) || last && part.is_empty(),
        };
        if !fits {
            return false;
        }
    }
    parts.next().is_none()
}

/// Reads an address or a range in CIDR notation. A range with bits beyond its prefix is refused: it is not
/// clear which addresses were meant.
pub fn address_range(value: &str) -> Result<IpNet, String> {
    if let Ok(address) = value.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let range: IpNet = value
        .parse()
        .map_err(|_| format!("{value:?} is neither an address nor a range such as 10.0.0.0/8"))?;
    if range.trunc() != range {
        return Err(format!(
            "{value:?} has bits beyond its prefix: {} or {}?",
            range.trunc(),
            range.addr()
        ));
    }
    Ok(range)
}

/// Reads a port.
pub fn port_number(value: &IntOrString) -> Result<u16, String> {
    let port = match value {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(text) if text.bytes().all(|c| c.is_ascii_digit()) => text.parse().ok(),
        IntOrString::String(_) => None,
    };
    port.filter(|port| *port > 0).ok_or_else(|| match value {
        IntOrString::Int(number) => format!("{number} is not a port (1 to 65535)"),
        IntOrString::String(text) => format!("{text:?} is not a port (1 to 65535)"),
    })
}

/// What of a request a `when` key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestSubject<'a> {
    /// `request.method`.
    Method,
    /// `request.path`.
    Path,
    /// `request.host`.
    Host,
    /// `request.headers[NAME]`.
    Header(&'a str),
}

/// Reads the key of a `when` that is about a request; none for any other.
#[must_use]
pub fn request_subject(key: &str) -> Option<RequestSubject<'_>> {
    match key {
        "request.method" => Some(RequestSubject::Method),
        "request.path" => Some(RequestSubject::Path),
        "request.host" => Some(RequestSubject::Host),
        key => {
            let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?;
            (!name.is_empty()).then_some(RequestSubject::Header(name))
        }
    }
}

/// Reads the key of a `when`.
pub fn when_subject(key: &str) -> Result<Subject, String> {
    match key {
        "source.principal" => Ok(Subject::Principal),
        "source.namespace" => Ok(Subject::Namespace),
        "source.ip" => Ok(Subject::SourceAddress),
        "destination.ip" => Ok(Subject::DestinationAddress),
        "destination.port" => Ok(Subject::DestinationPort),
        key if request_subject(key).is_some() => Ok(Subject::Http),
        _ => Err(format!("unknown key {key:?}")),
    }
}
