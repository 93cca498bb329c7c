//! Translation keeps the meaning where planes can see everything, and never opens anything where they cannot.

use std::borrow::Cow;
use std::net::IpAddr;

use proptest::prelude::*;
use trefoil_api::Identity;
use trefoil_api::crd::{
    Action, AuthorizationPolicySpec, MtlsMode, Operation, PeerAuthenticationSpec, Rule, Source, When,
};
use trefoil_api::policy::{Asked, Connection, Headers, Request, compile, evaluate};
use trefoil_api::proto::istio::security::{Authorization, Scope};

use super::{Effective, authorization, peer_authentication};

#[derive(Clone, Debug)]
struct Seen {
    peer: Option<Identity>,
    source: IpAddr,
    port: u16,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    tier: &'static str,
}

/// The one header field of requests.
#[derive(Debug)]
struct Tier(&'static str);

impl Headers for Tier {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "x-tier" && !self.0.is_empty()).then_some(Cow::Borrowed(self.0))
    }
}

/// Where nothing reads HTTP.
fn verdict(policies: &[Authorization], seen: &Seen) -> bool {
    evaluated(policies, seen, false)
}

fn evaluated(policies: &[Authorization], seen: &Seen, reads: bool) -> bool {
    let compiled: Vec<_> = policies.iter().map(|one| compile(one).expect("valid")).collect();
    let headers = Tier(seen.tier);
    let request = Request {
        method: seen.method,
        path: seen.path,
        host: seen.host,
        headers: &headers,
    };
    let connection = Connection {
        peer: seen.peer.as_ref(),
        source: seen.source,
        destination: "10.0.0.9".parse().expect("address"),
        port: seen.port,
        asked: if reads { request.into() } else { Asked::Bytes },
    };
    evaluate(&compiled, &connection).allows()
}

fn both(spec: &AuthorizationPolicySpec) -> super::authorization::Translated {
    authorization("shop", "policy", spec, Scope::Namespace, &None).expect("valid")
}

fn translated(spec: &AuthorizationPolicySpec) -> Authorization {
    both(spec).policy
}

// The slow evaluator: what the words of the kind say, HTTP included.

fn text_matches(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => !value.is_empty(),
        (Some(suffix), _) => value.ends_with(suffix),
        (_, Some(prefix)) => value.starts_with(prefix),
        _ => value == pattern,
    }
}

fn listed(values: &[String], not: &[String], matches: impl Fn(&str) -> bool) -> bool {
    (values.is_empty() || values.iter().any(|value| matches(value)))
        && !not.iter().any(|value| matches(value))
}

fn in_range(range: &str, address: IpAddr) -> bool {
    match range.parse::<ipnet::IpNet>() {
        Ok(range) => range.contains(&address),
        Err(_) => range.parse() == Ok(address),
    }
}

fn rule_matches(rule: &Rule, seen: &Seen) -> bool {
    let principal = seen.peer.as_ref().map(Identity::principal).unwrap_or_default();
    let namespace = seen.peer.as_ref().map_or("", Identity::namespace).to_owned();
    let port = |value: &str| value.parse() == Ok(seen.port);
    let from = |one: &Source| {
        listed(&one.principals, &one.not_principals, |v| {
            text_matches(v, &principal)
        }) && listed(&one.namespaces, &one.not_namespaces, |v| {
            text_matches(v, &namespace)
        }) && listed(&one.addresses, &one.not_addresses, |v| in_range(v, seen.source))
    };
    let to = |one: &Operation| {
        let texts = |all: &[k8s_openapi::apimachinery::pkg::util::intstr::IntOrString]| -> Vec<String> {
            all.iter()
                .map(|value| {
                    serde_json::to_value(value)
                        .expect("value")
                        .to_string()
                        .replace('"', "")
                })
                .collect()
        };
        listed(&texts(&one.ports), &texts(&one.not_ports), port)
            && listed(&one.methods, &one.not_methods, |v| text_matches(v, seen.method))
            && listed(&one.hosts, &one.not_hosts, |v| text_matches(v, seen.host))
            && listed(&one.paths, &one.not_paths, |v| text_matches(v, seen.path))
    };
    let when = |one: &When| {
        listed(&one.values, &one.not_values, |v| match one.key.as_str() {
            "source.principal" => text_matches(v, &principal),
            "destination.port" => port(v),
            "request.method" => text_matches(v, seen.method),
            // A field that is not there has no value.
            "request.headers[X-Tier]" => !seen.tier.is_empty() && text_matches(v, seen.tier),
            other => panic!("{other}"),
        })
    };
    (rule.from.is_empty() || rule.from.iter().any(from))
        && (rule.to.is_empty() || rule.to.iter().any(to))
        && rule.when.iter().all(when)
}

fn reference(specs: &[AuthorizationPolicySpec], seen: &Seen) -> bool {
    let matches = |spec: &AuthorizationPolicySpec| spec.rules.iter().any(|rule| rule_matches(rule, seen));
    let of = |action| specs.iter().filter(move |spec| spec.action == action);
    let denied = of(Action::Deny).any(matches);
    let asked = of(Action::Allow).next().is_some();
    !denied && (!asked || of(Action::Allow).any(matches))
}

fn texts(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::collection::vec(prop::sample::select(choices).prop_map(String::from), 1..3),
    ]
}

const PRINCIPALS: &[&str] = &[
    "*",
    "cluster.local/ns/shop/sa/web",
    "*/sa/api",
    "cluster.local/ns/shop/*",
];
const METHODS: &[&str] = &["GET", "POST", "*"];

fn source() -> impl Strategy<Value = Source> {
    let fields = (
        texts(PRINCIPALS),
        texts(PRINCIPALS),
        texts(&["shop", "*", "s*"]),
        texts(&["10.0.0.1", "10.0.0.0/30", "fd00::/64"]),
        texts(&["10.0.0.2", "0.0.0.0/0"]),
    );
    fields
        .prop_map(
            |(principals, not_principals, namespaces, addresses, not_addresses)| Source {
                principals,
                not_principals,
                namespaces,
                addresses,
                not_addresses,
                ..Source::default()
            },
        )
        .prop_filter("says nothing", |one| *one != Source::default())
}

fn operation(http: bool) -> impl Strategy<Value = Operation> {
    let ports = || {
        prop::collection::vec(
            (80i32..83).prop_map(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int),
            0..3,
        )
    };
    let fields = (
        ports(),
        ports(),
        texts(METHODS),
        texts(METHODS),
        texts(&["a.example", "*.example"]),
        texts(&["/api/*", "/health"]),
        texts(&["/api/admin*"]),
    );
    fields
        .prop_map(
            move |(ports, not_ports, methods, not_methods, hosts, paths, not_paths)| {
                let layer4 = Operation {
                    ports,
                    not_ports,
                    ..Operation::default()
                };
                if http {
                    Operation {
                        methods,
                        not_methods,
                        hosts,
                        paths,
                        not_paths,
                        ..layer4
                    }
                } else {
                    layer4
                }
            },
        )
        .prop_filter("says nothing", |one| *one != Operation::default())
}

fn condition(http: bool) -> impl Strategy<Value = When> {
    let keys: &'static [(&'static str, &'static [&'static str])] = if http {
        &[
            ("source.principal", PRINCIPALS),
            ("destination.port", &["80", "81"]),
            ("request.method", METHODS),
            ("request.headers[X-Tier]", &["gold", "*"]),
        ]
    } else {
        &[
            ("source.principal", PRINCIPALS),
            ("destination.port", &["80", "81"]),
        ]
    };
    prop::sample::select(keys)
        .prop_flat_map(|(key, values)| (Just(key), texts(values), texts(values)))
        .prop_map(|(key, values, not_values)| When {
            key: key.into(),
            values,
            not_values,
        })
        .prop_filter("says nothing", |one| {
            !one.values.is_empty() || !one.not_values.is_empty()
        })
}

fn spec(http: bool) -> impl Strategy<Value = AuthorizationPolicySpec> {
    let rule = (
        prop::collection::vec(source(), 0..3),
        prop::collection::vec(operation(http), 0..3),
        prop::collection::vec(condition(http), 0..2),
    )
        .prop_map(|(from, to, when)| Rule { from, to, when });
    let action = prop::sample::select(&[Action::Allow, Action::Deny, Action::Audit][..]);
    (prop::collection::vec(rule, 0..3), action).prop_map(|(rules, action)| AuthorizationPolicySpec {
        rules,
        action,
        ..AuthorizationPolicySpec::default()
    })
}

fn seen() -> impl Strategy<Value = Seen> {
    let peer = prop::sample::select(&[None, Some("web"), Some("api")][..]).prop_map(|account| {
        account.map(|account| Identity::new("cluster.local", "shop", account).expect("valid"))
    });
    let source = prop::sample::select(&["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1"][..])
        .prop_map(|address| address.parse().expect("address"));
    let method = prop::sample::select(&["GET", "POST"][..]);
    let host = prop::sample::select(&["a.example", "b.example"][..]);
    let path = prop::sample::select(&["/api/items", "/api/admin", "/health"][..]);
    let tier = prop::sample::select(&["", "gold", "silver"][..]);
    (peer, source, 80u16..83, (method, host, path, tier)).prop_map(
        |(peer, source, port, (method, host, path, tier))| Seen {
            peer,
            source,
            port,
            method,
            host,
            path,
            tier,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn layer_4_keeps_its_meaning(specs in prop::collection::vec(spec(false), 0..3), seen in seen()) {
        let policies: Vec<_> = specs.iter().map(translated).collect();
        prop_assert_eq!(verdict(&policies, &seen), reference(&specs, &seen));
    }

    #[test]
    fn what_cannot_be_inspected_is_never_let_pass(specs in prop::collection::vec(spec(true), 0..3), seen in seen()) {
        let policies: Vec<_> = specs.iter().map(translated).collect();
        if verdict(&policies, &seen) {
            prop_assert!(reference(&specs, &seen), "let pass what the policies refuse");
        }
    }

    #[test]
    fn where_http_is_read_everything_keeps_its_meaning(specs in prop::collection::vec(spec(true), 0..3), seen in seen()) {
        let policies: Vec<_> = specs.iter().map(|spec| both(spec).http).collect();
        prop_assert_eq!(evaluated(&policies, &seen, true), reference(&specs, &seen));
    }

    #[test]
    fn the_form_without_http_is_the_other_where_none_is_read(specs in prop::collection::vec(spec(true), 0..3), seen in seen()) {
        let forms: Vec<_> = specs.iter().map(both).collect();
        let http: Vec<_> = forms.iter().map(|one| one.http.clone()).collect();
        let plain: Vec<_> = forms.into_iter().map(|one| one.policy).collect();
        prop_assert_eq!(verdict(&http, &seen), verdict(&plain, &seen));
        let no_extension = |one: &Authorization| {
            let matches = one.rules.iter().flat_map(|rule| &rule.clauses).flat_map(|clause| &clause.matches);
            matches.into_iter().all(|one| one.extensions.is_empty())
        };
        prop_assert!(plain.iter().all(no_extension), "a foreign plane would refuse it");
    }

    #[test]
    fn valid_objects_translate(spec in spec(true)) {
        let object = serde_json::json!({"spec": spec});
        prop_assert!(trefoil_api::crd::authorization_policy(&object).is_ok());
        prop_assert!(compile(&translated(&spec)).is_ok() && compile(&both(&spec).http).is_ok());
    }
}

#[test]
fn rules_that_need_http_are_named() {
    let http = |action| AuthorizationPolicySpec {
        action,
        rules: vec![
            Rule::default(),
            Rule {
                to: vec![Operation {
                    methods: vec!["GET".into()],
                    ..Operation::default()
                }],
                ..Rule::default()
            },
        ],
        ..AuthorizationPolicySpec::default()
    };
    let allow = authorization("shop", "a", &http(Action::Allow), Scope::Namespace, &None).expect("valid");
    assert_eq!((allow.needs_http, allow.policy.rules.len()), (vec![1], 1));
    let deny = authorization("shop", "a", &http(Action::Deny), Scope::Namespace, &None).expect("valid");
    assert_eq!((deny.needs_http, deny.policy.rules.len()), (vec![1], 2));
}

#[test]
fn a_policy_for_services_is_about_their_ports_only() {
    let everything = AuthorizationPolicySpec {
        action: Action::Deny,
        rules: vec![Rule::default()],
        ..AuthorizationPolicySpec::default()
    };
    let at = |port| Seen {
        peer: None,
        source: "10.0.0.1".parse().expect("address"),
        port,
        method: "GET",
        host: "a",
        path: "/",
        tier: "",
    };
    for (ports, refused) in [(vec![8080], vec![8080]), (vec![], vec![])] {
        let ports = Some(ports.into_iter().collect());
        let policy = authorization("shop", "a", &everything, Scope::WorkloadSelector, &ports).expect("valid");
        for port in [1, 80, 8080] {
            assert_eq!(
                verdict(std::slice::from_ref(&policy.policy), &at(port)),
                !refused.contains(&port),
                "{port}"
            );
        }
    }
}

#[test]
fn the_most_specific_peer_authentication_wins_port_by_port() {
    use MtlsMode::{Disable, Permissive, Strict};
    let spec = |mtls: Option<MtlsMode>, ports: &[(&str, MtlsMode)]| PeerAuthenticationSpec {
        mtls,
        ports: ports
            .iter()
            .map(|(port, mode)| ((*port).to_owned(), *mode))
            .collect(),
        ..PeerAuthenticationSpec::default()
    };
    let table = [
        (vec![], Permissive, false, vec![]),
        (vec![], Strict, true, vec![]),
        (vec![spec(Some(Disable), &[])], Strict, false, vec![]),
        (
            vec![spec(None, &[("80", Permissive)]), spec(Some(Strict), &[])],
            Permissive,
            true,
            vec![80],
        ),
        // A mode for all ports hides what is less specific, its ports included.
        (
            vec![spec(Some(Permissive), &[]), spec(Some(Strict), &[("80", Strict)])],
            Strict,
            false,
            vec![],
        ),
        (
            vec![
                spec(None, &[("80", Strict)]),
                spec(None, &[("80", Permissive), ("81", Strict)]),
            ],
            Permissive,
            false,
            vec![80, 81],
        ),
    ];
    for (chain, default, strict, exceptions) in table {
        let effective = Effective::of(&chain, default);
        assert_eq!(effective, Effective { strict, exceptions }, "{chain:?}");
        let plain = |port| Seen {
            peer: None,
            source: "10.0.0.1".parse().expect("address"),
            port,
            method: "GET",
            host: "a",
            path: "/",
            tier: "",
        };
        let policies: Vec<_> = peer_authentication("shop", "a", &effective).into_iter().collect();
        for port in [80, 81, 82] {
            let refused = effective.strict != effective.exceptions.contains(&port);
            assert_eq!(verdict(&policies, &plain(port)), !refused);
            let known = Seen {
                peer: Some(Identity::new("cluster.local", "shop", "web").expect("valid")),
                ..plain(port)
            };
            assert!(verdict(&policies, &known));
        }
    }
}
