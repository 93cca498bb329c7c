//! Tables, and a property: the evaluator agrees with a slow one that follows the words of the specification.

mod http;

use std::net::IpAddr;

use proptest::prelude::*;

use super::{Asked, Connection, Reason, Verdict, audit, compile, evaluate};
use crate::Identity;
use crate::proto::istio::security::string_match::MatchType;
use crate::proto::istio::security::{Action, Address, Authorization, Clause, Match, Rule, StringMatch};

fn text(kind: MatchType) -> StringMatch {
    StringMatch {
        match_type: Some(kind),
    }
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        action: action.into(),
        rules,
        ..Authorization::default()
    }
}

fn rule(matches: Vec<Match>) -> Rule {
    Rule {
        clauses: vec![Clause { matches }],
    }
}

fn verdict(policies: &[Authorization], peer: Option<&Identity>, port: u16) -> Verdict {
    let compiled: Vec<_> = policies.iter().map(|one| compile(one).expect("valid")).collect();
    let connection = Connection {
        peer,
        source: "10.0.0.1".parse().expect("address"),
        destination: "10.0.0.2".parse().expect("address"),
        port,
        asked: Asked::Bytes,
    };
    evaluate(&compiled, &connection)
}

fn web() -> Identity {
    Identity::new("cluster.local", "shop", "web").expect("valid")
}

#[test]
fn without_policies_everything_passes() {
    assert_eq!(verdict(&[], None, 80), Verdict::Allow(Reason::NoPolicy));
}

#[test]
fn an_allow_policy_without_rules_closes() {
    let closed = policy("closed", Action::Allow, Vec::new());
    assert_eq!(
        verdict(&[closed], Some(&web()), 80),
        Verdict::Deny(Reason::NoneMatched(vec!["shop/closed".into()]))
    );
}

#[test]
fn a_deny_policy_wins_over_an_allow_policy() {
    let everybody = vec![Rule {
        clauses: vec![Clause::default()],
    }];
    let allow = policy("allow", Action::Allow, everybody.clone());
    let deny = policy("deny", Action::Deny, everybody);
    assert_eq!(
        verdict(&[allow.clone(), deny.clone()], Some(&web()), 80),
        Verdict::Deny(Reason::Matched("shop/deny".into()))
    );
    let mut dry = deny;
    dry.dry_run = true;
    assert_eq!(
        verdict(&[dry, allow], Some(&web()), 80),
        Verdict::Allow(Reason::Matched("shop/allow".into()))
    );
}

#[test]
fn the_audit_names_what_would_have_denied() {
    let everybody = vec![Rule {
        clauses: vec![Clause::default()],
    }];
    let dry = |name: &str, action, rules| {
        let mut policy = policy(name, action, rules);
        policy.dry_run = true;
        compile(&policy).unwrap()
    };
    let peer = web();
    let connection = Connection {
        peer: Some(&peer),
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        port: 80,
        asked: Asked::Bytes,
    };
    let all = [
        dry("denies", Action::Deny, everybody.clone()),
        dry("denies-nobody", Action::Deny, vec![]),
        dry("allows-nobody", Action::Allow, vec![]),
        dry("allows", Action::Allow, everybody.clone()),
        compile(&policy("in-force", Action::Deny, vec![])).unwrap(),
    ];
    assert_eq!(audit(&all, &connection), ["shop/denies", "shop/allows-nobody"]);
    let allow = compile(&policy("allow", Action::Allow, everybody)).unwrap();
    let allowed = [all[0].clone(), all[2].clone(), allow];
    assert_eq!(audit(&allowed, &connection), ["shop/denies"]);
    assert!(audit(&all[4..], &connection).is_empty());
}

#[test]
fn strict_refuses_plaintext_only() {
    let nobody = Match {
        not_principals: vec![text(MatchType::Presence(()))],
        ..Match::default()
    };
    let strict = [policy("strict", Action::Deny, vec![rule(vec![nobody])])];
    assert!(!verdict(&strict, None, 80).allows());
    assert!(verdict(&strict, Some(&web()), 80).allows());
}

#[test]
fn an_empty_match_matches_nothing() {
    let policies = [policy("empty", Action::Deny, vec![rule(vec![Match::default()])])];
    assert!(verdict(&policies, None, 80).allows());
}

#[test]
fn what_is_not_understood_is_refused_whole_with_the_field() {
    let good = Match {
        destination_ports: vec![80],
        ..Match::default()
    };
    let table: Vec<(Match, &str)> = vec![
        (
            Match {
                destination_ports: vec![70_000],
                ..good.clone()
            },
            "destination_ports[0]",
        ),
        (
            Match {
                source_ips: vec![Address {
                    address: vec![1, 2, 3].into(),
                    length: 8,
                }],
                ..good.clone()
            },
            "source_ips[0]",
        ),
        (
            Match {
                not_source_ips: vec![Address {
                    address: vec![1, 2, 3, 4].into(),
                    length: 33,
                }],
                ..good.clone()
            },
            "not_source_ips[0]",
        ),
        (
            Match {
                principals: vec![StringMatch { match_type: None }],
                ..good.clone()
            },
            "principals[0]",
        ),
        (
            Match {
                namespaces: vec![text(MatchType::Prefix(String::new()))],
                ..good
            },
            "namespaces[0]",
        ),
    ];
    for (one, field) in table {
        let error = compile(&policy("bad", Action::Allow, vec![rule(vec![one])])).expect_err(field);
        let wanted = format!("rules[0].clauses[0].matches[0].{field}");
        assert!(
            error.to_string().contains(&wanted),
            "{error} does not name {wanted}"
        );
    }
    let mut unknown = policy("bad", Action::Allow, Vec::new());
    unknown.action = 7;
    assert!(
        compile(&unknown)
            .expect_err("action")
            .to_string()
            .contains("action")
    );
}

// The slow evaluator, on messages and texts of bits.

struct Seen {
    principal: String,
    namespace: String,
    source: IpAddr,
    destination: IpAddr,
    port: u32,
}

fn bits(address: &[u8]) -> String {
    address.iter().map(|byte| format!("{byte:08b}")).collect()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn in_range(range: &Address, address: IpAddr) -> bool {
    let address = octets(address);
    address.len() == range.address.len()
        && bits(&address)[..range.length as usize] == bits(&range.address)[..range.length as usize]
}

fn text_matches(pattern: &StringMatch, value: &str) -> bool {
    match pattern.match_type.as_ref().expect("generated") {
        MatchType::Exact(exact) => value == exact,
        MatchType::Prefix(prefix) => value.len() >= prefix.len() && &value[..prefix.len()] == prefix,
        MatchType::Suffix(suffix) => {
            value.len() >= suffix.len() && &value[value.len() - suffix.len()..] == suffix
        }
        MatchType::Presence(()) => !value.is_empty(),
    }
}

fn reference_match(one: &Match, seen: &Seen) -> bool {
    let mut said_something = false;
    let mut holds = true;
    let mut positive = |count: usize, any: bool| {
        said_something |= count > 0;
        holds &= count == 0 || any;
    };
    let texts = |all: &[StringMatch], value: &str| all.iter().any(|pattern| text_matches(pattern, value));
    let ranges = |all: &[Address], value| all.iter().any(|range| in_range(range, value));
    positive(one.principals.len(), texts(&one.principals, &seen.principal));
    positive(one.namespaces.len(), texts(&one.namespaces, &seen.namespace));
    positive(one.source_ips.len(), ranges(&one.source_ips, seen.source));
    positive(
        one.destination_ips.len(),
        ranges(&one.destination_ips, seen.destination),
    );
    positive(
        one.destination_ports.len(),
        one.destination_ports.contains(&seen.port),
    );
    let mut negative = |count: usize, any: bool| {
        said_something |= count > 0;
        holds &= !any;
    };
    negative(
        one.not_principals.len(),
        texts(&one.not_principals, &seen.principal),
    );
    negative(
        one.not_namespaces.len(),
        texts(&one.not_namespaces, &seen.namespace),
    );
    negative(one.not_source_ips.len(), ranges(&one.not_source_ips, seen.source));
    negative(
        one.not_destination_ips.len(),
        ranges(&one.not_destination_ips, seen.destination),
    );
    negative(
        one.not_destination_ports.len(),
        one.not_destination_ports.contains(&seen.port),
    );
    said_something && holds
}

fn reference(policies: &[Authorization], seen: &Seen) -> bool {
    let matches = |policy: &Authorization| {
        let mut any_rule = false;
        for rule in &policy.rules {
            let mut all_clauses = true;
            for clause in &rule.clauses {
                let mut any_match = clause.matches.is_empty();
                for one in &clause.matches {
                    any_match |= reference_match(one, seen);
                }
                all_clauses &= any_match;
            }
            any_rule |= all_clauses;
        }
        any_rule
    };
    let (mut denied, mut asked, mut allowed) = (false, false, false);
    for policy in policies.iter().filter(|policy| !policy.dry_run) {
        if policy.action == i32::from(Action::Deny) {
            denied |= matches(policy);
        } else {
            asked = true;
            allowed |= matches(policy);
        }
    }
    !denied && (!asked || allowed)
}

fn some_text() -> impl Strategy<Value = StringMatch> {
    let value = prop::sample::select(vec![
        "shop",
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/shop/sa/api",
        "cluster.local/ns/shop",
        "web",
        "s",
    ]);
    (value, 0..4).prop_map(|(value, kind)| {
        text(match kind {
            0 => MatchType::Exact(value.into()),
            1 => MatchType::Prefix(value.into()),
            2 => MatchType::Suffix(value.into()),
            _ => MatchType::Presence(()),
        })
    })
}

fn some_range() -> impl Strategy<Value = Address> {
    prop_oneof![
        (0u8..4, 24u32..=32).prop_map(|(last, length)| Address {
            address: vec![10, 0, 0, last].into(),
            length
        }),
        (0u8..4, 120u32..=128).prop_map(|(last, length)| {
            let mut address = vec![0xfd; 16];
            address[15] = last;
            Address {
                address: address.into(),
                length,
            }
        }),
    ]
}

fn few<T: std::fmt::Debug + 'static>(
    one: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![3 => Just(0usize), 2 => Just(1), 1 => Just(2)].prop_flat_map({
        let one = one.boxed();
        move |count| prop::collection::vec(one.clone(), count)
    })
}

fn some_match() -> impl Strategy<Value = Match> {
    let texts = (
        few(some_text()),
        few(some_text()),
        few(some_text()),
        few(some_text()),
    );
    let ranges = (
        few(some_range()),
        few(some_range()),
        few(some_range()),
        few(some_range()),
    );
    let ports = (few(80u32..83), few(80u32..83));
    (texts, ranges, ports).prop_map(|(texts, ranges, ports)| Match {
        principals: texts.0,
        not_principals: texts.1,
        namespaces: texts.2,
        not_namespaces: texts.3,
        source_ips: ranges.0,
        not_source_ips: ranges.1,
        destination_ips: ranges.2,
        not_destination_ips: ranges.3,
        destination_ports: ports.0,
        not_destination_ports: ports.1,
        ..Match::default()
    })
}

fn some_policy() -> impl Strategy<Value = Authorization> {
    let clause = few(some_match()).prop_map(|matches| Clause { matches });
    let rule = few(clause).prop_map(|clauses| Rule { clauses });
    (few(rule), any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(rules, deny, dry_run)| {
        let action = if deny { Action::Deny } else { Action::Allow };
        Authorization {
            dry_run,
            ..policy("one", action, rules)
        }
    })
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..4).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        (0u8..4).prop_map(|last| {
            let mut address = [0xfd; 16];
            address[15] = last;
            IpAddr::from(address)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn agrees_with_the_slow_evaluator(
        policies in prop::collection::vec(some_policy(), 0..4),
        peer in prop_oneof![Just(None), Just(Some("web")), Just(Some("api"))],
        source in some_address(),
        destination in some_address(),
        port in 80u16..83,
    ) {
        let peer = peer.map(|account| Identity::new("cluster.local", "shop", account).expect("valid"));
        let compiled: Vec<_> = policies.iter().map(|one| compile(one).expect("valid")).collect();
        let connection = Connection { peer: peer.as_ref(), source, destination, port, asked: Asked::Bytes };
        let seen = Seen {
            principal: peer.as_ref().map(Identity::principal).unwrap_or_default(),
            namespace: peer.as_ref().map(|peer| peer.namespace().to_owned()).unwrap_or_default(),
            source,
            destination,
            port: port.into(),
        };
        prop_assert_eq!(evaluate(&compiled, &connection).allows(), reference(&policies, &seen));
    }
}

#[test]
fn a_policy_is_described_as_it_is_evaluated() {
    let one = Match {
        principals: vec![text(MatchType::Prefix("cluster.local/ns/shop/".into()))],
        not_destination_ports: vec![22],
        ..Match::default()
    };
    let other = Match {
        namespaces: vec![text(MatchType::Exact("web".into()))],
        ..Match::default()
    };
    let ports = Match {
        destination_ports: vec![80, 443],
        ..Match::default()
    };
    let rules = vec![
        Rule {
            clauses: vec![
                Clause {
                    matches: vec![one, other],
                },
                Clause::default(),
                Clause { matches: vec![ports] },
            ],
        },
        Rule {
            clauses: vec![Clause::default()],
        },
        rule(vec![Match::default()]),
    ];
    let compiled = compile(&policy("some", Action::Allow, rules)).expect("valid");
    assert_eq!(
        compiled.described(),
        [
            "(principal is cluster.local/ns/shop/* and port is not 22; or namespace is web) and port is 80 or 443",
            "any connection",
            "nothing",
        ]
    );
}
