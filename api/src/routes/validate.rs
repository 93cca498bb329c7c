//! Reads routes whole, or says all that is wrong with them.

use std::time::Duration;

use serde_json::Value;

use super::{
    BackendRef, Filter, FilterKind, GrpcMatch, GrpcSpec, HeaderChange, HttpMatch, HttpRule, HttpSpec,
    MatchKind, MirrorRef, PathChange, PathChangeKind, PathKind, Redirect, RouteSpec, ValueMatch,
};
use crate::crd::{FieldError, Found, spec};
use crate::path::normalize;

/// The largest share of a backend.
const HEAVIEST: u32 = 1_000_000;
/// The largest program of a regular expression, in bytes.
const EXPRESSION: usize = 1 << 20;

/// Reads an HTTPRoute.
pub fn http_route(object: &Value) -> Result<HttpSpec, Vec<FieldError>> {
    let spec: HttpSpec = spec(object)?;
    let mut found = Found::default();
    head(&mut found, &spec);
    for (index, rule) in spec.rules.iter().enumerate() {
        http_rule(&mut found, rule, &format!("spec.rules[{index}]"));
    }
    found.or(spec)
}

/// Reads a GRPCRoute.
pub fn grpc_route(object: &Value) -> Result<GrpcSpec, Vec<FieldError>> {
    let spec: GrpcSpec = spec(object)?;
    let mut found = Found::default();
    head(&mut found, &spec);
    for (index, rule) in spec.rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        for (index, one) in rule.matches.iter().enumerate() {
            grpc_match(&mut found, one, &format!("{at}.matches[{index}]"));
        }
        let allowed = [
            FilterKind::RequestHeaderModifier,
            FilterKind::ResponseHeaderModifier,
            FilterKind::RequestMirror,
        ];
        for (index, filter) in rule.filters.iter().enumerate() {
            if !allowed.contains(&filter.kind) {
                found.say(
                    &format!("{at}.filters[{index}].type"),
                    "is not one of a GRPCRoute",
                );
            }
        }
        filters(&mut found, &rule.filters, None, &at);
        backends(&mut found, &rule.backend_refs, &at);
    }
    found.or(spec)
}

/// Reads a duration as the Gateway API writes it (GEP-2257): `1h30m`, `500ms`, `0s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is not a duration such as 1h30m, 10s or 500ms");
    let (mut rest, mut total, mut parts) = (text, Duration::ZERO, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits]
            .parse()
            .ok()
            .filter(|_| (1..=5).contains(&digits))
            .ok_or_else(refused)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        total += match &rest[..letters] {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return Err(refused()),
        };
        rest = &rest[letters..];
        parts += 1;
    }
    if (1..=4).contains(&parts) {
        Ok(total)
    } else {
        Err(refused())
    }
}

fn head<Rule>(found: &mut Found, spec: &RouteSpec<Rule>) {
    for (index, parent) in spec.parent_refs.iter().enumerate() {
        if parent.name.is_empty() {
            found.say(&format!("spec.parentRefs[{index}].name"), "is empty");
        }
        if parent.port == Some(0) {
            found.say(&format!("spec.parentRefs[{index}].port"), "0 is not a port");
        }
    }
    for (index, name) in spec.hostnames.iter().enumerate() {
        let at = format!("spec.hostnames[{index}]");
        found.check(&at, hostname(name.strip_prefix("*.").unwrap_or(name)));
    }
}

fn http_rule(found: &mut Found, rule: &HttpRule, at: &str) {
    for (index, one) in rule.matches.iter().enumerate() {
        http_match(found, one, &format!("{at}.matches[{index}]"));
    }
    filters(found, &rule.filters, Some(&rule.matches), at);
    backends(found, &rule.backend_refs, at);
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let at = format!("{at}.backendRefs[{index}]");
        filters(found, &backend.filters, Some(&rule.matches), &at);
    }
    let redirects = |filter: &Filter| filter.kind == FilterKind::RequestRedirect;
    if rule.filters.iter().any(redirects) && !rule.backend_refs.is_empty() {
        found.say(
            &format!("{at}.backendRefs"),
            "what is redirected goes to no backend",
        );
    }
    if let Some(timeouts) = &rule.timeouts {
        let read = |found: &mut Found, name: &str, text: &Option<String>| {
            let text = text.as_deref()?;
            let read = duration(text);
            found.check(&format!("{at}.timeouts.{name}"), read.clone());
            read.ok().filter(|time| !time.is_zero())
        };
        let whole = read(found, "request", &timeouts.request);
        let each = read(found, "backendRequest", &timeouts.backend_request);
        if whole.zip(each).is_some_and(|(whole, each)| each > whole) {
            found.say(
                &format!("{at}.timeouts.backendRequest"),
                "is longer than the request may take",
            );
        }
    }
    if let Some(retry) = &rule.retry {
        for (index, code) in retry.codes.iter().enumerate() {
            if !(400..600).contains(code) {
                found.say(
                    &format!("{at}.retry.codes[{index}]"),
                    format!("{code} is no status of a failure (400 to 599)"),
                );
            }
        }
        if let Some(backoff) = &retry.backoff {
            found.check(&format!("{at}.retry.backoff"), duration(backoff));
        }
    }
}

fn http_match(found: &mut Found, one: &HttpMatch, at: &str) {
    if let Some(path) = &one.path {
        let at = format!("{at}.path.value");
        match path.kind {
            PathKind::RegularExpression => found.check(&at, expression(&path.value)),
            PathKind::Exact | PathKind::PathPrefix => found.check(&at, absolute(&path.value)),
        }
    }
    values(found, &one.headers, &format!("{at}.headers"), true);
    values(found, &one.query_params, &format!("{at}.queryParams"), false);
}

fn grpc_match(found: &mut Found, one: &GrpcMatch, at: &str) {
    values(found, &one.headers, &format!("{at}.headers"), true);
    let Some(method) = &one.method else { return };
    if method.service.is_none() && method.method.is_none() {
        found.say(&format!("{at}.method"), "names neither a service nor a method");
    }
    for (name, text) in [("service", &method.service), ("method", &method.method)] {
        let (at, Some(text)) = (format!("{at}.method.{name}"), text) else {
            continue;
        };
        match method.kind {
            MatchKind::RegularExpression => found.check(&at, expression(text)),
            MatchKind::Exact if text.is_empty() || text.contains('/') => {
                found.say(&at, format!("{text:?} is not a name"));
            }
            MatchKind::Exact => {}
        }
    }
}

fn values(found: &mut Found, all: &[ValueMatch], at: &str, headers: bool) {
    for (index, one) in all.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if headers {
            found.check(&format!("{at}.name"), token(&one.name));
        } else if one.name.is_empty() {
            found.say(&format!("{at}.name"), "is empty");
        }
        if one.kind == MatchKind::RegularExpression {
            found.check(&format!("{at}.value"), expression(&one.value));
        }
    }
}

fn filters(found: &mut Found, all: &[Filter], matches: Option<&[HttpMatch]>, at: &str) {
    for (index, filter) in all.iter().enumerate() {
        let at = format!("{at}.filters[{index}]");
        let once = filter.kind != FilterKind::RequestMirror;
        if once && all[..index].iter().any(|other| other.kind == filter.kind) {
            found.say(&format!("{at}.type"), "is there already");
        }
        one_filter(found, filter, matches, &at);
    }
    let has = |kind| all.iter().any(|filter| filter.kind == kind);
    if has(FilterKind::RequestRedirect) && has(FilterKind::UrlRewrite) {
        found.say(&format!("{at}.filters"), "what is redirected is not rewritten");
    }
}

fn one_filter(found: &mut Found, filter: &Filter, matches: Option<&[HttpMatch]>, at: &str) {
    let fields = [
        (
            FilterKind::RequestHeaderModifier,
            filter.request_header_modifier.is_some(),
        ),
        (
            FilterKind::ResponseHeaderModifier,
            filter.response_header_modifier.is_some(),
        ),
        (FilterKind::RequestRedirect, filter.request_redirect.is_some()),
        (FilterKind::UrlRewrite, filter.url_rewrite.is_some()),
        (FilterKind::RequestMirror, filter.request_mirror.is_some()),
    ];
    if fields
        .iter()
        .any(|(kind, there)| *there != (*kind == filter.kind))
    {
        found.say(at, "has not exactly the field that its type names");
    }
    for (name, change) in [
        ("requestHeaderModifier", &filter.request_header_modifier),
        ("responseHeaderModifier", &filter.response_header_modifier),
    ] {
        if let Some(change) = change {
            header_change(found, change, &format!("{at}.{name}"));
        }
    }
    if let Some(one) = &filter.request_redirect {
        redirect(found, one, matches, &format!("{at}.requestRedirect"));
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let at = format!("{at}.urlRewrite");
        if let Some(host) = &rewrite.hostname {
            found.check(&format!("{at}.hostname"), hostname(host));
        }
        path_change(found, rewrite.path.as_ref(), matches, &format!("{at}.path"));
    }
    if let Some(mirror) = &filter.request_mirror {
        let at = format!("{at}.requestMirror");
        reference(found, &mirror.backend_ref, &format!("{at}.backendRef"));
        let fraction = mirror.fraction.as_ref();
        if mirror.percent.is_some() && fraction.is_some() {
            found.say(&at, "percent and fraction exclude each other");
        }
        let part = mirror.percent.map(|percent| (percent, 100));
        let part = part.or(fraction.map(|part| (part.numerator, part.denominator.unwrap_or(100))));
        if part.is_some_and(|(part, whole)| whole == 0 || part > whole) {
            found.say(&at, "is no part of a whole");
        }
    }
}

fn redirect(found: &mut Found, one: &Redirect, matches: Option<&[HttpMatch]>, at: &str) {
    if !matches!(one.scheme.as_deref(), None | Some("http" | "https")) {
        found.say(&format!("{at}.scheme"), "is neither http nor https");
    }
    if !matches!(one.status_code, None | Some(301 | 302 | 303 | 307 | 308)) {
        found.say(&format!("{at}.statusCode"), "is none of 301, 302, 303, 307, 308");
    }
    if one.port == Some(0) {
        found.say(&format!("{at}.port"), "0 is not a port");
    }
    if let Some(host) = &one.hostname {
        found.check(&format!("{at}.hostname"), hostname(host));
    }
    path_change(found, one.path.as_ref(), matches, &format!("{at}.path"));
}

/// A prefix can be replaced only where every match is one.
fn path_change(found: &mut Found, change: Option<&PathChange>, matches: Option<&[HttpMatch]>, at: &str) {
    let Some(change) = change else { return };
    let both = change.replace_full_path.is_some() && change.replace_prefix_match.is_some();
    if both || change.value().is_none() {
        found.say(at, "has not exactly the field that its type names");
    }
    if let Some(path) = change.value().filter(|path| !path.is_empty()) {
        found.check(at, absolute(path));
    }
    let prefix = |one: &HttpMatch| {
        let kind = one.path.as_ref().map(|path| path.kind);
        kind.is_none_or(|kind| kind == PathKind::PathPrefix)
    };
    let all_prefixes = matches.is_some_and(|matches| matches.iter().all(prefix));
    if change.kind == PathChangeKind::ReplacePrefixMatch && !all_prefixes {
        found.say(at, "replaces a prefix where not every match is one");
    }
}

fn header_change(found: &mut Found, change: &HeaderChange, at: &str) {
    let mut named: Vec<String> = Vec::new();
    let changed = [("set", &change.set), ("add", &change.add)];
    let changed = changed.into_iter().flat_map(|(name, all)| {
        let fields = all.iter().enumerate();
        fields.map(move |(index, field)| (format!("{name}[{index}]"), &field.name, Some(&field.value)))
    });
    let removed = change.remove.iter().enumerate();
    let removed = removed.map(|(index, name)| (format!("remove[{index}]"), name, None));
    for (place, name, value) in changed.chain(removed) {
        let at = format!("{at}.{place}");
        found.check(&at, token(name));
        if value.is_some_and(|value| !value.bytes().all(|c| c == b'\t' || (c >= 0x20 && c != 0x7f))) {
            found.say(&at, "has a value with control characters");
        }
        let lower = name.to_ascii_lowercase();
        if named.contains(&lower) {
            found.say(&at, format!("{name} is changed already"));
        }
        named.push(lower);
    }
}

fn backends(found: &mut Found, all: &[BackendRef], at: &str) {
    for (index, backend) in all.iter().enumerate() {
        let at = format!("{at}.backendRefs[{index}]");
        reference(found, &backend.target(), &at);
        if backend.weight.is_some_and(|weight| weight > HEAVIEST) {
            found.say(&format!("{at}.weight"), format!("is over {HEAVIEST}"));
        }
    }
}

fn reference(found: &mut Found, target: &MirrorRef, at: &str) {
    if target.name.is_empty() {
        found.say(&format!("{at}.name"), "is empty");
    }
    if target.port == Some(0) || (target.is_service() && target.port.is_none()) {
        found.say(&format!("{at}.port"), "is needed of a Service (1 to 65535)");
    }
}

/// What is matched whole; linear in time by its engine, and bounded in size here.
fn expression(text: &str) -> Result<(), String> {
    let built = regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(EXPRESSION)
        .build();
    // A parenthesis that closes the group would make it match more than the whole.
    let own = regex::RegexBuilder::new(text).size_limit(EXPRESSION).build();
    own.and(built)
        .map(drop)
        .map_err(|error| format!("is not a regular expression: {error}"))
}

/// A path as it can be after normalisation.
fn absolute(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} does not begin with /"));
    }
    let inside = path.split('/').any(|segment| matches!(segment, "." | ".."));
    let odd = path.contains("//") || path.contains(['?', '#']);
    if inside || odd {
        return Err(format!("{path:?} is a path that no request has"));
    }
    normalize(path)
        .map(drop)
        .map_err(|refused| format!("{path:?}: {refused}"))
}

/// RFC 9110, section 5.6.2.
fn token(name: &str) -> Result<(), String> {
    let valid = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if name.is_empty() || !name.bytes().all(valid) {
        return Err(format!("{name:?} is not the name of a header field"));
    }
    Ok(())
}

fn hostname(name: &str) -> Result<(), String> {
    let label = |label: &str| {
        let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let address = name.parse::<std::net::Ipv4Addr>().is_ok();
    if name.len() > 253 || address || !name.split('.').all(label) {
        return Err(format!("{name:?} is not a host name in lower case"));
    }
    Ok(())
}
