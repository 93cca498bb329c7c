//! A slow matcher, written from the text of the Gateway API (HTTPRouteSpec.hostnames, HTTPRouteRule.matches): all
//! candidates are collected from the messages themselves, then thrown out one criterion after the other.

use std::collections::HashSet;

use regex::Regex;
use trefoil_api::proto::trefoil::v1::{self as message, http_path_match, http_value_match};

use super::RequestHead;

struct Candidate<'m> {
    route: &'m message::HttpRoute,
    host: &'m str,
    rule: usize,
    one: message::HttpRouteMatch,
}

/// The name of the rule for a request.
pub(super) fn found(
    routes: &[message::HttpRoute],
    service: &str,
    port: u16,
    head: &RequestHead<'_>,
    pairs: &[(&str, &str)],
) -> String {
    let attached = |route: &&message::HttpRoute| {
        let mut parents = route.parents.iter();
        parents
            .any(|parent| parent.service == service && (parent.port == 0 || parent.port == u32::from(port)))
    };
    let routes: Vec<_> = routes.iter().filter(attached).collect();
    if routes.is_empty() {
        return "no routes".into();
    }
    let mut candidates = Vec::new();
    for route in routes {
        let any = [String::new()];
        let hosts = if route.hostnames.is_empty() {
            &any[..]
        } else {
            &route.hostnames
        };
        for host in hosts.iter().filter(|host| host_matches(host, head.host)) {
            let host = route
                .hostnames
                .iter()
                .find(|own| *own == host)
                .map_or("", String::as_str);
            for (rule, of) in route.rules.iter().enumerate() {
                let all = if of.matches.is_empty() {
                    vec![Default::default()]
                } else {
                    of.matches.clone()
                };
                for one in all.into_iter().filter(|one| is_true(one, head, pairs)) {
                    candidates.push(Candidate {
                        route,
                        host,
                        rule,
                        one,
                    });
                }
            }
        }
    }
    let wildcard = |host: &str| host.is_empty() || host.starts_with("*.");
    let bare = |host: &str| if wildcard(host) { 0 } else { host.len() };
    keep(&mut candidates, |one| bare(one.host) as i64);
    keep(&mut candidates, |one| one.host.len() as i64);
    keep(&mut candidates, |one| {
        i64::from(matches!(kind(&one.one), Some(http_path_match::Kind::Exact(_))))
    });
    // Left open by the specification: regular expressions stand before prefixes, the longer first.
    keep(&mut candidates, |one| match kind(&one.one) {
        Some(http_path_match::Kind::RegularExpression(pattern)) => {
            pattern.len() as i64 + "^(?:)$".len() as i64
        }
        _ => 0,
    });
    keep(&mut candidates, |one| match kind(&one.one) {
        Some(http_path_match::Kind::Prefix(prefix)) => prefix.trim_end_matches('/').len() as i64,
        _ => 0,
    });
    keep(&mut candidates, |one| i64::from(!one.one.method.is_empty()));
    keep(&mut candidates, |one| names(&one.one.headers).len() as i64);
    keep(&mut candidates, |one| names(&one.one.query).len() as i64);
    keep(&mut candidates, |one| -one.route.created);
    candidates.sort_by_key(|one| format!("{}/{}", one.route.namespace, one.route.name));
    let Some(first) = candidates.first() else {
        return "no match".into();
    };
    let name = first.route.name.clone();
    let of_route = candidates.iter().filter(|one| one.route.name == name);
    let rule = of_route.map(|one| one.rule).min().unwrap_or_default();
    first.route.rules[rule].name.clone()
}

/// Throws out those that have less of something than the best.
fn keep(candidates: &mut Vec<Candidate<'_>>, of: impl Fn(&Candidate<'_>) -> i64) {
    let best = candidates.iter().map(&of).max();
    candidates.retain(|one| Some(of(one)) == best);
}

fn kind(one: &message::HttpRouteMatch) -> Option<&http_path_match::Kind> {
    one.path.as_ref()?.kind.as_ref()
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        _ if pattern.is_empty() => true,
        Some(parent) => host.ends_with(&format!(".{parent}")),
        None => pattern == host,
    }
}

fn names(values: &[message::HttpValueMatch]) -> HashSet<&str> {
    values.iter().map(|value| value.name.as_str()).collect()
}

/// Only the first entry of a name counts.
fn values_are<'v>(
    values: &[message::HttpValueMatch],
    of: impl Fn(&str) -> Option<std::borrow::Cow<'v, str>>,
) -> bool {
    names(values).into_iter().all(|name| {
        let first = values.iter().find(|value| value.name == name).expect("named");
        match (&first.kind, of(name)) {
            (Some(http_value_match::Kind::Exact(exact)), Some(found)) => *exact == found,
            _ => false,
        }
    })
}

fn is_true(one: &message::HttpRouteMatch, head: &RequestHead<'_>, pairs: &[(&str, &str)]) -> bool {
    let segments = |path: &str| -> Vec<String> {
        path.split('/')
            .filter(|segment| !segment.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let path = match kind(one) {
        None => true,
        Some(http_path_match::Kind::Exact(exact)) => exact == head.path,
        Some(http_path_match::Kind::Prefix(prefix)) => segments(head.path).starts_with(&segments(prefix)),
        Some(http_path_match::Kind::RegularExpression(pattern)) => {
            let found = Regex::new(pattern).expect("valid").find(head.path);
            found.is_some_and(|found| found.start() == 0 && found.end() == head.path.len())
        }
    };
    let header = |name: &str| {
        let values: Vec<_> = head
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().expect("text"))
            .collect();
        (!values.is_empty()).then(|| values.join(",").into())
    };
    let parameter = |name: &str| {
        let first = pairs.iter().find(|(of, _)| *of == name);
        first.map(|(_, value)| (*value).to_owned().into())
    };
    path && (one.method.is_empty() || one.method == head.method)
        && values_are(&one.headers, header)
        && values_are(&one.query, parameter)
}
