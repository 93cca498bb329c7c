//! Messages into routes. Whatever cannot be understood refuses the whole route, with the field named.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use regex::{Regex, RegexBuilder};
use trefoil_api::path;
use trefoil_api::proto::trefoil::v1 as message;

use super::matching::{HostPattern, Match, PathMatch, ValueMatch};
use super::{Backend, CompiledRoute, Retry, Rule};
use crate::filters::{self, Filters};
use crate::retry::Budget;

/// What a regular expression may take when compiled, in bytes.
const REGEX_SIZE: usize = 256 * 1024;
/// Matches of one route, which are searched in order.
const MATCHES: usize = 2_048;

/// Why a route was refused: the field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{route}: {field}: {problem}")]
pub struct InvalidRoute {
    /// `KIND/NAMESPACE/NAME`.
    pub route: String,
    /// The field of the message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A field, and what is wrong with it.
pub(crate) type Problem = (String, String);

/// Understands a route, whole or not at all.
pub fn compile(route: &message::HttpRoute) -> Result<CompiledRoute, InvalidRoute> {
    let name = format!("{}/{}/{}", route.kind, route.namespace, route.name);
    compiled(route, &name).map_err(|(field, problem)| InvalidRoute {
        route: name,
        field,
        problem,
    })
}

fn compiled(route: &message::HttpRoute, name: &str) -> Result<CompiledRoute, Problem> {
    if !matches!(route.kind.as_str(), "HTTPRoute" | "GRPCRoute") {
        return Err(("kind".into(), format!("{:?} is not known", route.kind)));
    }
    let parents = each(&route.parents, "parents", |parent, at| {
        if parent.service.is_empty() {
            return Err((format!("{at}.service"), "is empty".into()));
        }
        Ok((parent.service.clone(), port(parent.port, &format!("{at}.port"))?))
    })?;
    let mut hosts = each(&route.hostnames, "hostnames", |host, at| hostname(host, at))?;
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let rules = each(&route.rules, "rules", |one, at| rule(one, name, at))?;
    if rules.iter().map(|(matches, _)| matches.len()).sum::<usize>() > MATCHES {
        return Err(("rules".into(), format!("have more than {MATCHES} matches")));
    }
    Ok(CompiledRoute {
        name: name.to_owned(),
        namespace: route.namespace.clone(),
        created: route.created,
        order: (format!("{}/{}", route.namespace, route.name), route.kind.clone()),
        parents,
        hosts,
        rules,
    })
}

/// Compiles each of a list.
pub(crate) fn each<T, U>(
    from: &[T],
    field: &str,
    compile: impl Fn(&T, &str) -> Result<U, Problem>,
) -> Result<Vec<U>, Problem> {
    let one = |(index, one)| compile(one, &format!("{field}[{index}]"));
    from.iter().enumerate().map(one).collect()
}

pub(crate) fn port(from: u32, at: &str) -> Result<u16, Problem> {
    u16::try_from(from).map_err(|_| (at.to_owned(), format!("{from} is no port")))
}

fn hostname(from: &str, at: &str) -> Result<HostPattern, Problem> {
    let name = from.to_ascii_lowercase();
    let bare = name.strip_prefix("*.").unwrap_or(&name);
    if bare.is_empty() || bare.contains(['*', ':', '/']) {
        return Err((at.to_owned(), format!("{from:?} is no hostname")));
    }
    Ok(match name.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(name),
    })
}

fn rule(from: &message::HttpRouteRule, route: &str, at: &str) -> Result<(Vec<Match>, Arc<Rule>), Problem> {
    let field = |name: &str| format!("{at}.{name}");
    let mut matches = each(&from.matches, &field("matches"), one_match)?;
    if matches.is_empty() {
        matches.push(Match {
            path: PathMatch::Prefix(String::new()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        });
    }
    let filters = filters::compile(&from.filters, &field("filters"))?;
    if filters.needs_prefix() && matches.iter().any(|one| one.prefix().is_none()) {
        let problem = "replaces a prefix, but a match of the rule is of no prefix";
        return Err((field("filters"), problem.into()));
    }
    let name = match from.name.as_str() {
        "" => route.to_owned(),
        name => format!("{route}/{name}"),
    };
    let rule = Rule {
        name,
        filters,
        backends: each(&from.backends, &field("backends"), backend)?,
        request_timeout: limit(from.request_timeout_milliseconds),
        attempt_timeout: limit(from.backend_request_timeout_milliseconds),
        retry: match &from.retry {
            Some(from) => Some(retry(from, &field("retry"))?),
            None => None,
        },
    };
    Ok((matches, Arc::new(rule)))
}

fn limit(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

fn retry(from: &message::HttpRetry, at: &str) -> Result<Retry, Problem> {
    let codes = each(&from.codes, &format!("{at}.codes"), |code, at| {
        u16::try_from(*code)
            .ok()
            .filter(|code| (400..600).contains(code))
            .ok_or_else(|| (at.to_owned(), format!("{code} is no status of a failure")))
    })?;
    Ok(Retry {
        attempts: from.attempts,
        codes,
        backoff: Duration::from_millis(from.backoff_milliseconds),
        budget: Budget::default(),
    })
}

fn one_match(from: &message::HttpRouteMatch, at: &str) -> Result<Match, Problem> {
    let field = |name: &str| format!("{at}.{name}");
    let path = match &from.path {
        None => PathMatch::Prefix(String::new()),
        Some(path) => path_match(path, &field("path"))?,
    };
    let method = match from.method.as_str() {
        "" => None,
        method => Some(
            Method::from_bytes(method.as_bytes())
                .map_err(|_| (field("method"), format!("{method:?} is no method")))?
                .to_string(),
        ),
    };
    let headers = values(&from.headers, &field("headers"), |name, at| {
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| (at, format!("{name:?} is no name of a header")))
    })?;
    let query = values(&from.query, &field("query"), |name, _| Ok(name.to_owned()))?;
    Ok(Match {
        path,
        method,
        headers,
        query,
    })
}

fn path_match(from: &message::HttpPathMatch, at: &str) -> Result<PathMatch, Problem> {
    use message::http_path_match::Kind;
    let normal = |path: &str, at: String| match path::normalize(path) {
        Ok(normal) => Ok(normal.into_owned()),
        Err(refused) => Err((at, refused.to_string())),
    };
    match &from.kind {
        Some(Kind::Exact(exact)) => Ok(PathMatch::Exact(normal(exact, format!("{at}.exact"))?)),
        Some(Kind::Prefix(prefix)) => {
            let mut prefix = normal(prefix, format!("{at}.prefix"))?;
            if prefix.ends_with('/') {
                prefix.pop();
            }
            Ok(PathMatch::Prefix(prefix))
        }
        Some(Kind::RegularExpression(pattern)) => Ok(PathMatch::Regex(regex(
            pattern,
            &format!("{at}.regular_expression"),
        )?)),
        None => Err((at.to_owned(), "is of no kind that is known here".into())),
    }
}

/// A regular expression that must match the whole of what it is asked of.
fn regex(pattern: &str, at: &str) -> Result<Regex, Problem> {
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(REGEX_SIZE).build();
    // By itself first: what closes a group must not get out of the one that is put around it. The line's end
    // keeps a comment, which `(?x)` allows, from reaching over it.
    build(pattern)
        .and_then(|_| build(&format!("^(?:{pattern}\n)$")).and(build(&format!("^(?:{pattern})$"))))
        .map_err(|error| (at.to_owned(), error.to_string()))
}

/// Of several entries with one name, only the first counts (Gateway API, HTTPRouteMatch).
fn values<N: PartialEq>(
    from: &[message::HttpValueMatch],
    field: &str,
    name: impl Fn(&str, String) -> Result<N, Problem>,
) -> Result<Vec<(N, ValueMatch)>, Problem> {
    use message::http_value_match::Kind;
    let compiled = each(from, field, |one, at| {
        if one.name.is_empty() {
            return Err((format!("{at}.name"), "is empty".into()));
        }
        let value = match &one.kind {
            Some(Kind::Exact(exact)) => ValueMatch::Exact(exact.clone()),
            Some(Kind::RegularExpression(pattern)) => {
                ValueMatch::Regex(regex(pattern, &format!("{at}.regular_expression"))?)
            }
            None => return Err((at.to_owned(), "is of no kind that is known here".into())),
        };
        Ok((name(&one.name, format!("{at}.name"))?, value))
    })?;
    let mut first: Vec<(N, ValueMatch)> = Vec::with_capacity(compiled.len());
    for (name, value) in compiled {
        if first.iter().all(|(other, _)| *other != name) {
            first.push((name, value));
        }
    }
    Ok(first)
}

fn backend(from: &message::HttpRouteBackend, at: &str) -> Result<Backend, Problem> {
    let at_filters = format!("{at}.filters");
    let Filters {
        request,
        response,
        redirect,
        rewrite,
        mirrors,
    } = filters::compile(&from.filters, &at_filters)?;
    if redirect.is_some() || rewrite.is_some() || !mirrors.is_empty() {
        let problem = "of a backend may only change headers";
        return Err((at_filters, problem.into()));
    }
    Ok(Backend {
        service: (!from.service.is_empty()).then(|| from.service.clone()),
        port: port(from.port, &format!("{at}.port"))?,
        weight: from.weight,
        request,
        response,
    })
}
