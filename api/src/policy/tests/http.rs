//! Policy that asks about HTTP, where a plane reads it and where none does.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::{policy, rule, some_text, text, text_matches, web};
use crate::names::extension;
use crate::policy::{Asked, Connection, Headers, Request, compile, evaluate};
use crate::proto::istio::security::string_match::MatchType;
use crate::proto::istio::security::{Action, Authorization, Clause, Extension, Match, Rule, StringMatch};
use crate::proto::trefoil::v1::{HttpHeaderMatch, HttpRequestMatch};
use crate::proto::type_url;

#[derive(Clone, Debug)]
struct Fields(BTreeMap<String, String>);

impl Headers for Fields {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

#[derive(Clone, Debug)]
struct Sent {
    method: String,
    path: String,
    host: String,
    fields: Fields,
}

impl Sent {
    fn get(path: &str) -> Self {
        Self {
            method: "GET".into(),
            path: path.into(),
            host: "cart.shop".into(),
            fields: Fields(BTreeMap::new()),
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            path: &self.path,
            host: &self.host,
            headers: &self.fields,
        }
    }
}

fn asking(http: &HttpRequestMatch) -> Match {
    Match {
        extensions: vec![Extension {
            name: extension::HTTP.into(),
            config: Some(prost_types::Any {
                type_url: type_url::HTTP_REQUEST_MATCH.into(),
                value: http.encode_to_vec(),
            }),
        }],
        ..Match::default()
    }
}

fn allowed(policies: &[Authorization], request: Option<Request<'_>>) -> bool {
    allows(policies, request.map_or(Asked::Bytes, Asked::Request))
}

fn allows(policies: &[Authorization], asked: Asked<'_>) -> bool {
    let compiled: Vec<_> = policies.iter().map(|one| compile(one).expect("valid")).collect();
    let peer = web();
    let connection = Connection {
        peer: Some(&peer),
        source: "10.0.0.1".parse().expect("address"),
        destination: "10.0.0.2".parse().expect("address"),
        port: 80,
        asked,
    };
    evaluate(&compiled, &connection).allows()
}

fn exact(value: &str) -> StringMatch {
    text(MatchType::Exact(value.into()))
}

#[test]
fn a_path_is_allowed_and_another_is_not() {
    let carts = HttpRequestMatch {
        methods: vec![exact("GET")],
        paths: vec![text(MatchType::Prefix("/carts/".into()))],
        ..HttpRequestMatch::default()
    };
    let policies = [policy("carts", Action::Allow, vec![rule(vec![asking(&carts)])])];
    assert!(allowed(&policies, Some(Sent::get("/carts/7").request())));
    assert!(!allowed(&policies, Some(Sent::get("/admin").request())));
    assert!(!allowed(&policies, None), "bytes are no request");
}

#[test]
fn what_no_request_could_change_is_decided_before_any_is_read() {
    let carts = HttpRequestMatch {
        paths: vec![exact("/carts")],
        ..HttpRequestMatch::default()
    };
    let others = Match {
        not_namespaces: vec![exact("shop")],
        ..asking(&carts)
    };
    // The client is of shop.
    let for_others = [policy("others", Action::Allow, vec![rule(vec![others.clone()])])];
    assert!(!allows(&for_others, Asked::Unread));
    let for_all = [policy("all", Action::Allow, vec![rule(vec![asking(&carts)])])];
    assert!(allows(&for_all, Asked::Unread));
    let against_all = [policy("never", Action::Deny, vec![rule(vec![asking(&carts)])])];
    assert!(allows(&against_all, Asked::Unread));
}

#[test]
fn what_is_asked_of_http_is_described_too() {
    let asked = HttpRequestMatch {
        methods: vec![exact("GET")],
        not_paths: vec![text(MatchType::Prefix("/admin".into()))],
        headers: vec![HttpHeaderMatch {
            name: "X-Tier".into(),
            values: vec![exact("gold")],
            not_values: Vec::new(),
        }],
        ..HttpRequestMatch::default()
    };
    let compiled = compile(&policy("one", Action::Allow, vec![rule(vec![asking(&asked)])])).expect("valid");
    assert_eq!(
        compiled.described(),
        ["method is GET and path is not /admin* and header x-tier is gold"]
    );
}

#[test]
fn hosts_are_the_same_in_either_case() {
    let host = HttpRequestMatch {
        hosts: vec![exact("CART.shop")],
        ..HttpRequestMatch::default()
    };
    let policies = [policy("host", Action::Allow, vec![rule(vec![asking(&host)])])];
    assert!(allowed(&policies, Some(Sent::get("/").request())));
}

#[test]
fn what_asks_nothing_or_is_another_thing_is_refused_whole() {
    let nameless = HttpRequestMatch {
        headers: vec![HttpHeaderMatch::default()],
        ..HttpRequestMatch::default()
    };
    let unasking = HttpRequestMatch {
        headers: vec![HttpHeaderMatch {
            name: "x-user".into(),
            ..HttpHeaderMatch::default()
        }],
        ..HttpRequestMatch::default()
    };
    let mut foreign = asking(&HttpRequestMatch {
        methods: vec![exact("GET")],
        ..HttpRequestMatch::default()
    });
    foreign.extensions[0].name = "example.com/other".into();
    let mut twice = foreign.clone();
    twice.extensions[0].name = extension::HTTP.into();
    twice.extensions.push(twice.extensions[0].clone());
    let mut mistyped = foreign.clone();
    mistyped.extensions[0].name = extension::HTTP.into();
    mistyped.extensions[0].config.as_mut().expect("config").type_url = type_url::GUARD.into();
    let nothing = asking(&HttpRequestMatch::default());
    for one in [
        asking(&nameless),
        asking(&unasking),
        foreign,
        twice,
        mistyped,
        nothing,
    ] {
        let error = compile(&policy("bad", Action::Deny, vec![rule(vec![one])])).expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("rules[0].clauses[0].matches[0].extensions"),
            "{error}"
        );
    }
}

#[test]
fn a_path_that_is_not_as_paths_are_compared_is_refused_with_the_remedy() {
    for (kind, remedy) in [
        (MatchType::Exact("/%61dmin".into()), "write \"/admin\""),
        (MatchType::Prefix("/a//".into()), "write \"/a/\""),
        (MatchType::Suffix("//admin".into()), "write \"/admin\""),
        (MatchType::Exact("admin".into()), "slash"),
    ] {
        for not in [false, true] {
            let path = vec![text(kind.clone())];
            let one = match not {
                false => HttpRequestMatch {
                    paths: path,
                    ..HttpRequestMatch::default()
                },
                true => HttpRequestMatch {
                    not_paths: path,
                    ..HttpRequestMatch::default()
                },
            };
            let bad = policy("bad", Action::Deny, vec![rule(vec![asking(&one)])]);
            let error = compile(&bad).expect_err("refused").to_string();
            assert!(error.contains("aths[0]") && error.contains(remedy), "{error}");
        }
    }
}

/// The rules as they are written in the contract, slowly.
fn reference(one: &HttpRequestMatch, sent: &Sent) -> bool {
    let any = |patterns: &[StringMatch], value: &str| patterns.iter().any(|one| text_matches(one, value));
    let kind = |yes: &[StringMatch], no: &[StringMatch], value: &str| {
        (yes.is_empty() || any(yes, value)) && !any(no, value)
    };
    let headers = one
        .headers
        .iter()
        .all(|header| match sent.fields.0.get(&header.name) {
            Some(value) => kind(&header.values, &header.not_values, value),
            None => header.values.is_empty(),
        });
    kind(&one.methods, &one.not_methods, &sent.method)
        && kind(&one.paths, &one.not_paths, &sent.path)
        && kind(&one.hosts, &one.not_hosts, &sent.host)
        && headers
}

fn texts() -> impl Strategy<Value = Vec<StringMatch>> {
    prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(some_text(), 1..3)]
}

/// Paths as they are compared: from the root.
fn paths() -> impl Strategy<Value = Vec<StringMatch>> {
    let from_the_root = |one: StringMatch| {
        let kind = one.match_type.map(|kind| match kind {
            MatchType::Exact(value) => MatchType::Exact(format!("/{value}")),
            MatchType::Prefix(value) => MatchType::Prefix(format!("/{value}")),
            other => other,
        });
        StringMatch { match_type: kind }
    };
    texts().prop_map(move |all| all.into_iter().map(from_the_root).collect())
}

fn some_http() -> impl Strategy<Value = HttpRequestMatch> {
    let header = (texts(), texts()).prop_map(|(values, not_values)| HttpHeaderMatch {
        name: "x-user".into(),
        values,
        not_values,
    });
    let pairs = (texts(), texts(), paths(), paths(), texts(), texts());
    (pairs, prop::option::of(header)).prop_map(|(texts, header)| HttpRequestMatch {
        methods: texts.0,
        not_methods: texts.1,
        paths: texts.2,
        not_paths: texts.3,
        hosts: texts.4,
        not_hosts: texts.5,
        headers: header
            .into_iter()
            .filter(|one| !(one.values.is_empty() && one.not_values.is_empty()))
            .collect(),
    })
}

fn some_sent() -> impl Strategy<Value = Sent> {
    let value = || prop::sample::select(vec!["shop", "s", "web", "cluster.local/ns/shop"]);
    (value(), value(), value(), prop::option::of(value())).prop_map(|(method, path, host, user)| Sent {
        method: method.into(),
        path: format!("/{path}"),
        host: host.into(),
        fields: Fields(
            user.map(|user| ("x-user".to_owned(), user.to_owned()))
                .into_iter()
                .collect(),
        ),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_slow_evaluator(http in some_http(), sent in some_sent(), deny in any::<bool>()) {
        prop_assume!(http != HttpRequestMatch::default());
        let action = if deny { Action::Deny } else { Action::Allow };
        let policies = [policy("one", action, vec![rule(vec![asking(&http)])])];
        let matches = reference(&http, &sent);
        prop_assert_eq!(allowed(&policies, Some(sent.request())), matches != deny);
    }

    /// Whoever reads no HTTP never lets pass what somebody who reads it would refuse.
    #[test]
    fn bytes_are_never_allowed_more_than_any_request_and_what_is_unread_never_less(
        asked in prop::collection::vec((some_http(), any::<bool>()), 1..4),
        sent in some_sent(),
    ) {
        let asked: Vec<_> = asked.into_iter().filter(|(http, _)| *http != HttpRequestMatch::default()).collect();
        let policies: Vec<Authorization> = asked.iter().enumerate().map(|(index, (http, deny))| {
            let action = if *deny { Action::Deny } else { Action::Allow };
            policy(&format!("p{index}"), action, vec![Rule { clauses: vec![Clause { matches: vec![asking(http)] }] }])
        }).collect();
        prop_assert!(!allowed(&policies, None) || allowed(&policies, Some(sent.request())));
        // And nobody is turned away before the request is read that would be allowed.
        prop_assert!(!allowed(&policies, Some(sent.request())) || allows(&policies, Asked::Unread));
    }
}
