//! HTTPRoute and GRPCRoute → the rules of `trefoil.v1.HttpRoute`. A gRPC method is a path of its own.

use std::time::Duration;

use trefoil_api::proto::trefoil::v1::{
    self as message, http_path_match, http_route_filter, http_value_match,
};
use trefoil_api::routes::{
    self, BackendRef, Filter, FilterKind, GrpcMethodMatch, GrpcRule, HeaderChange, HttpRule, MatchKind,
    MirrorRef, PathChange, PathChangeKind, PathKind, ValueMatch,
};

/// Says what a reference is: the service's name, or nothing.
pub(crate) type Resolve<'a> = dyn FnMut(&MirrorRef) -> String + 'a;

/// The rules of an HTTPRoute.
pub(crate) fn http_rules(rules: &[HttpRule], resolve: &mut Resolve<'_>) -> Vec<message::HttpRouteRule> {
    let mut all = Vec::new();
    for rule in rules {
        let matches = rule.matches.iter().map(|one| message::HttpRouteMatch {
            path: one.path.as_ref().map(|path| {
                path_match(match path.kind {
                    PathKind::Exact => http_path_match::Kind::Exact(path.value.clone()),
                    PathKind::PathPrefix => http_path_match::Kind::Prefix(path.value.clone()),
                    PathKind::RegularExpression => {
                        http_path_match::Kind::RegularExpression(path.value.clone())
                    }
                })
            }),
            headers: values(&one.headers, true),
            query: values(&one.query_params, false),
            method: one.method.map_or_else(String::new, |method| method.name().into()),
        });
        let timeouts = rule.timeouts.clone().unwrap_or_default();
        all.push(message::HttpRouteRule {
            matches: matches.collect(),
            filters: filters(&rule.filters, resolve),
            backends: backends(&rule.backend_refs, resolve),
            request_timeout_milliseconds: milliseconds(timeouts.request.as_deref()),
            backend_request_timeout_milliseconds: milliseconds(timeouts.backend_request.as_deref()),
            retry: rule.retry.as_ref().map(|retry| message::HttpRetry {
                attempts: retry.attempts.unwrap_or(1),
                codes: retry.codes.iter().copied().map(u32::from).collect(),
                backoff_milliseconds: milliseconds(retry.backoff.as_deref()),
            }),
            name: rule.name.clone().unwrap_or_default(),
        });
    }
    all
}

/// The rules of a GRPCRoute.
pub(crate) fn grpc_rules(rules: &[GrpcRule], resolve: &mut Resolve<'_>) -> Vec<message::HttpRouteRule> {
    let mut all = Vec::new();
    for rule in rules {
        let matches = rule.matches.iter().map(|one| message::HttpRouteMatch {
            path: one.method.as_ref().map(|method| path_match(grpc_path(method))),
            headers: values(&one.headers, true),
            ..message::HttpRouteMatch::default()
        });
        all.push(message::HttpRouteRule {
            matches: matches.collect(),
            filters: filters(&rule.filters, resolve),
            backends: backends(&rule.backend_refs, resolve),
            name: rule.name.clone().unwrap_or_default(),
            ..message::HttpRouteRule::default()
        });
    }
    all
}

fn path_match(kind: http_path_match::Kind) -> message::HttpPathMatch {
    message::HttpPathMatch { kind: Some(kind) }
}

/// `/SERVICE/METHOD`, as gRPC writes it.
fn grpc_path(one: &GrpcMethodMatch) -> http_path_match::Kind {
    use http_path_match::Kind;
    match (one.kind, one.service.as_deref(), one.method.as_deref()) {
        (MatchKind::Exact, Some(service), Some(method)) => Kind::Exact(format!("/{service}/{method}")),
        (MatchKind::Exact, Some(service), None) => Kind::Prefix(format!("/{service}")),
        (kind, service, method) => {
            let part = |text: Option<&str>| match (kind, text) {
                (_, None) => "[^/]+".to_owned(),
                (MatchKind::Exact, Some(text)) => regex::escape(text),
                (MatchKind::RegularExpression, Some(text)) => format!("(?:{text})"),
            };
            Kind::RegularExpression(format!("/{}/{}", part(service), part(method)))
        }
    }
}

/// Of two for one name the first counts. Names of header fields are in lower case.
fn values(all: &[ValueMatch], headers: bool) -> Vec<message::HttpValueMatch> {
    let mut kept: Vec<message::HttpValueMatch> = Vec::new();
    for one in all {
        let name = match headers {
            true => one.name.to_ascii_lowercase(),
            false => one.name.clone(),
        };
        if kept.iter().any(|known| known.name == name) {
            continue;
        }
        let kind = match one.kind {
            MatchKind::Exact => http_value_match::Kind::Exact(one.value.clone()),
            MatchKind::RegularExpression => http_value_match::Kind::RegularExpression(one.value.clone()),
        };
        kept.push(message::HttpValueMatch {
            name,
            kind: Some(kind),
        });
    }
    kept
}

fn backends(all: &[BackendRef], resolve: &mut Resolve<'_>) -> Vec<message::HttpRouteBackend> {
    let mut backends = Vec::new();
    for one in all {
        backends.push(message::HttpRouteBackend {
            service: resolve(&one.target()),
            port: one.port.unwrap_or_default().into(),
            weight: one.weight.unwrap_or(1),
            filters: filters(&one.filters, resolve),
        });
    }
    backends
}

fn filters(all: &[Filter], resolve: &mut Resolve<'_>) -> Vec<message::HttpRouteFilter> {
    let mut filters = Vec::new();
    for filter in all {
        let kind = one_filter(filter, resolve);
        filters.push(message::HttpRouteFilter { kind });
    }
    filters
}

fn one_filter(filter: &Filter, resolve: &mut Resolve<'_>) -> Option<http_route_filter::Kind> {
    use http_route_filter::Kind;
    Some(match filter.kind {
        FilterKind::RequestHeaderModifier => {
            Kind::RequestHeaders(header_change(filter.request_header_modifier.as_ref()?))
        }
        FilterKind::ResponseHeaderModifier => {
            Kind::ResponseHeaders(header_change(filter.response_header_modifier.as_ref()?))
        }
        FilterKind::RequestRedirect => {
            let one = filter.request_redirect.as_ref()?;
            Kind::Redirect(message::HttpRedirect {
                scheme: one.scheme.clone().unwrap_or_default(),
                host: one.hostname.clone().unwrap_or_default(),
                port: one.port.unwrap_or_default().into(),
                path: one.path.as_ref().and_then(path_change),
                status: one.status_code.unwrap_or(302).into(),
            })
        }
        FilterKind::UrlRewrite => {
            let one = filter.url_rewrite.as_ref()?;
            Kind::Rewrite(message::HttpRewrite {
                host: one.hostname.clone().unwrap_or_default(),
                path: one.path.as_ref().and_then(path_change),
            })
        }
        FilterKind::RequestMirror => {
            let one = filter.request_mirror.as_ref()?;
            let part = one.fraction.as_ref();
            let part = part.map(|part| (part.numerator, part.denominator.unwrap_or(100)));
            let (numerator, denominator) = part
                .or(one.percent.map(|percent| (percent, 100)))
                .unwrap_or_default();
            Kind::Mirror(message::HttpMirror {
                backend: Some(message::HttpRouteBackend {
                    service: resolve(&one.backend_ref),
                    port: one.backend_ref.port.unwrap_or_default().into(),
                    weight: 1,
                    filters: Vec::new(),
                }),
                numerator,
                denominator,
            })
        }
    })
}

fn header_change(change: &HeaderChange) -> message::HttpHeaderChange {
    let fields = |all: &[routes::Header]| {
        let fields = all.iter().map(|one| message::HttpHeader {
            name: one.name.to_ascii_lowercase(),
            value: one.value.clone(),
        });
        fields.collect()
    };
    message::HttpHeaderChange {
        set: fields(&change.set),
        add: fields(&change.add),
        remove: change
            .remove
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
    }
}

fn path_change(change: &PathChange) -> Option<message::HttpPathChange> {
    use message::http_path_change::Kind;
    let value = change.value()?.to_owned();
    Some(message::HttpPathChange {
        kind: Some(match change.kind {
            PathChangeKind::ReplaceFullPath => Kind::Full(value),
            PathChangeKind::ReplacePrefixMatch => Kind::Prefix(value),
        }),
    })
}

/// Of a validated duration; 0 where there is none.
fn milliseconds(text: Option<&str>) -> u64 {
    let read = text.and_then(|text| routes::duration(text).ok());
    let time = read.unwrap_or(Duration::ZERO);
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
