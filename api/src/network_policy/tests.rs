use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use proptest::prelude::*;

use super::{Client, Peer, Policy, Rule, admit};

fn policy(name: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        name: format!("shop/{name}"),
        rules,
    }
}

fn rule(peers: Vec<Peer>, ports: Vec<RangeInclusive<u16>>) -> Rule {
    Rule { peers, ports }
}

fn group(name: &str) -> Peer {
    Peer::Group(name.into())
}

fn net(within: &str, except: &[&str]) -> Peer {
    Peer::Addresses {
        within: within.parse().unwrap(),
        except: except.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

/// A client in groups at `address`; to a server at 10.0.0.1.
fn admitted(policies: &[Policy], address: &str, groups: &[&str], port: u16) -> Result<(), String> {
    let own: IpAddr = "10.0.0.1".parse().unwrap();
    let groups: BTreeSet<String> = groups.iter().map(|one| (*one).to_owned()).collect();
    let client = Client {
        address: address.parse().unwrap(),
        groups: &groups,
    };
    admit(policies, &[own], &client, port).map_err(|refused| refused.to_string())
}

#[test]
fn what_is_let_in() {
    let web = || rule(vec![group("web")], vec![8080..=8080]);
    let range = || rule(vec![], vec![8000..=9000]);
    let block = || rule(vec![net("10.0.0.0/8", &["10.0.1.0/24"])], vec![]);
    for (rules, address, groups, port, expected, why) in [
        (
            vec![],
            "10.0.1.2",
            &["web"][..],
            8080,
            false,
            "no rule lets nobody in",
        ),
        (
            vec![rule(vec![], vec![])],
            "10.0.1.2",
            &[],
            1,
            true,
            "an empty rule lets everybody in",
        ),
        (vec![web()], "10.0.1.2", &["web"], 8080, true, "a peer at a port"),
        (
            vec![web()],
            "10.0.1.2",
            &["web"],
            8081,
            false,
            "a peer at another port",
        ),
        (
            vec![web()],
            "10.0.1.2",
            &["web"],
            15008,
            false,
            "a tunnel's port is none of the application",
        ),
        (vec![web()], "10.0.1.2", &["db"], 8080, false, "no peer"),
        (vec![range()], "10.0.1.2", &[], 9000, true, "the end of a range"),
        (vec![range()], "10.0.1.2", &[], 9001, false, "beyond a range"),
        (vec![block()], "10.2.0.1", &[], 80, true, "an address of a block"),
        (vec![block()], "10.0.1.2", &[], 80, false, "one of its exceptions"),
        (
            vec![block()],
            "::ffff:10.2.0.1",
            &[],
            80,
            true,
            "a mapped address",
        ),
        (vec![web(), block()], "10.2.0.1", &[], 80, true, "any rule"),
        (vec![], "10.0.0.1", &[], 80, true, "itself"),
        (vec![], "192.0.2.1", &[], 80, false, "another"),
    ] {
        let verdict = admitted(&[policy("p", rules)], address, groups, port);
        assert_eq!(verdict.is_ok(), expected, "{why}: {verdict:?}");
    }
    assert_eq!(admitted(&[], "10.0.1.2", &[], 80), Ok(()), "no policy");
}

#[test]
fn a_refusal_says_why() {
    let both = [policy("a", vec![]), policy("b", vec![])];
    let expected =
        "NetworkPolicy shop/a, shop/b selects the pod and allows no connection from 10.0.1.2 to port 80";
    assert_eq!(admitted(&both, "10.0.1.2", &[], 80), Err(expected.into()));
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let peer = prop_oneof![
        "[ab]".prop_map(Peer::Group),
        Just(net("10.0.0.0/8", &["10.0.1.0/24"])),
    ];
    let port = (1u16..4, 1u16..4).prop_map(|(first, last)| first..=last);
    let peers = prop::collection::vec(peer, 0..3);
    let ports = prop::collection::vec(port, 0..3);
    prop::collection::vec((peers, ports).prop_map(|(peers, ports)| rule(peers, ports)), 0..3)
}

proptest! {
    /// Policies are additive: of several, what any lets in is let in, and nothing else.
    #[test]
    fn several_policies_let_in_what_any_of_them_does(
        all in prop::collection::vec(rules(), 1..4),
        groups in prop::sample::subsequence(vec!["a", "b"], 0..=2),
        address in prop::sample::select(vec!["10.2.0.1", "10.0.1.2", "172.16.0.1"]),
        port in prop::sample::select(vec![1u16, 2, 3, 8080]),
    ) {
        let policies: Vec<Policy> = all.into_iter().map(|rules| policy("p", rules)).collect();
        let alone = |one: &Policy| admitted(std::slice::from_ref(one), address, &groups, port).is_ok();
        let together = admitted(&policies, address, &groups, port).is_ok();
        prop_assert_eq!(together, policies.iter().any(alone));
    }
}
