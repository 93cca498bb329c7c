//! However a path is written, routes and policy say the same of it, or it is refused: from the head as it came to the
//! verdict and the rule.

use http::Request;
use prost::Message;
use trefoil_api::names::extension;
use trefoil_api::policy::{self, Connection, Policy, Verdict, evaluate};
use trefoil_api::proto::istio::security::{self, Authorization, string_match::MatchType};
use trefoil_api::proto::trefoil::v1::HttpRequestMatch;
use trefoil_api::proto::type_url;

use super::*;
use crate::head::{self, Fields};

/// What becomes of a request for `target`: none where it is refused as it came.
fn outcome(
    target: &str,
    policies: &[Policy],
    routes: &[message::HttpRoute],
) -> Option<(String, Verdict, String)> {
    let request = Request::get(target).header("host", "a.shop").body(());
    let (mut parts, ()) = request.ok()?.into_parts();
    let head = head::read(&mut parts, "a.shop").ok()?;
    let path = parts.uri.path();
    let connection = Connection {
        peer: None,
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        port: 80,
        asked: policy::Asked::Request(policy::Request {
            method: "GET",
            path,
            host: &head.host,
            headers: &Fields(&parts.headers),
        }),
    };
    let rule = found(routes, 80, &asked(&head.host, path, &parts.headers));
    Some((path.to_owned(), evaluate(policies, &connection), rule))
}

/// A policy that asks for paths, or for others.
fn of_paths(action: security::Action, patterns: Vec<MatchType>, not: bool) -> Option<Policy> {
    let texts = patterns.into_iter().map(|pattern| security::StringMatch {
        match_type: Some(pattern),
    });
    let texts: Vec<_> = texts.collect();
    let asked = HttpRequestMatch {
        paths: if not { Vec::new() } else { texts.clone() },
        not_paths: if not { texts } else { Vec::new() },
        ..HttpRequestMatch::default()
    };
    let one = security::Match {
        extensions: vec![security::Extension {
            name: extension::HTTP.into(),
            config: Some(prost_types::Any {
                type_url: type_url::HTTP_REQUEST_MATCH.into(),
                value: asked.encode_to_vec(),
            }),
        }],
        ..security::Match::default()
    };
    let clauses = vec![security::Clause { matches: vec![one] }];
    policy::compile(&Authorization {
        name: "paths".into(),
        namespace: "shop".into(),
        action: action.into(),
        rules: vec![security::Rule { clauses }],
        ..Authorization::default()
    })
    .ok()
}

fn any_pattern() -> impl Strategy<Value = MatchType> {
    let cut = || (any_path(), any::<prop::sample::Index>());
    prop_oneof![
        any_path().prop_map(MatchType::Exact),
        cut().prop_map(|(path, at)| MatchType::Prefix(path[..=at.index(path.len())].into())),
        cut().prop_map(|(path, at)| MatchType::Suffix(path[at.index(path.len())..].into())),
        Just(MatchType::Presence(())),
    ]
}

fn any_policies() -> impl Strategy<Value = Vec<Policy>> {
    let action = prop::sample::select(vec![security::Action::Allow, security::Action::Deny]);
    let one = (action, prop::collection::vec(any_pattern(), 1..3), any::<bool>());
    let one = one.prop_filter_map("cut within an escape", |(action, patterns, not)| {
        of_paths(action, patterns, not)
    });
    prop::collection::vec(one, 0..4)
}

/// What some read as the same, or as another path than others do. The first slash stays: without it, it is another
/// kind of target.
fn mangled(path: &str, at: usize, with: &str) -> String {
    let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    let at = slashes[1 + at % (slashes.len() - 1)];
    format!("{}{with}{}", &path[..at], &path[at + 1..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn two_spellings_have_one_verdict_and_one_rule(
        routes in any_routes(),
        policies in any_policies(),
        path in any_path(),
        how in prop::collection::vec(respelling(), 1..8),
        query in prop::sample::select(vec!["", "?", "?x=/../b%2F"]),
    ) {
        let spelled = respell(&path, &how);
        let one = outcome(&path, &policies, &routes);
        prop_assert!(one.is_some());
        prop_assert_eq!(outcome(&format!("{spelled}{query}"), &policies, &routes), one, "{}", spelled);
    }

    #[test]
    fn what_some_read_otherwise_is_refused(
        path in any_path(),
        at in any::<usize>(),
        with in prop::sample::select(vec![
            "%2F", "%2f", "\\", "/\\", "%5C", "%5c/", "/..;/", "/%2e%2e;x/", "/.;/", "/%00", "/a%00/", "/%", "/%4/", "/%zz/", "/%0d%0a",
        ]),
    ) {
        let target = mangled(&format!("/a{path}"), at, with);
        prop_assert_eq!(outcome(&target, &[], &[]), None, "{}", target);
    }

    /// Whatever is let through is written in one way, which is let through as it is and means the same.
    #[test]
    fn what_is_let_through_is_in_its_one_spelling(
        routes in any_routes(),
        policies in any_policies(),
        target in "/([ab12/.;%]|%2e|%2F|%41|%5c|%20|\\\\|//|/\\.\\./){0,10}",
    ) {
        if let Some(one) = outcome(&target, &policies, &routes) {
            prop_assert_eq!(outcome(&one.0, &policies, &routes), Some(one.clone()), "{}", target);
        }
    }
}
