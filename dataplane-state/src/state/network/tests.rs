use trefoil_api::network_policy::{Peer, Policy, Rule};
use trefoil_api::proto::trefoil::v1::network_peer::Peer as Named;
use trefoil_api::proto::trefoil::v1::{
    AddressBlock, Network, NetworkPeer, NetworkPolicy, NetworkRule, PortRange,
};

use super::network;

fn with(peer: Option<Named>, (first, last): (u32, u32)) -> Network {
    let rule = NetworkRule {
        peers: vec![NetworkPeer { peer }],
        ports: vec![PortRange { first, last }],
    };
    Network {
        groups: vec!["web".into()],
        policies: vec![NetworkPolicy {
            name: "shop/fence".into(),
            rules: vec![rule],
        }],
    }
}

fn block(within: &str, except: &str) -> Option<Named> {
    Some(Named::Block(AddressBlock {
        within: within.into(),
        except: vec![except.into()],
    }))
}

#[test]
fn what_is_understood() {
    let read = network(with(block("10.0.0.0/8", "10.1.0.0/16"), (80, 90)), "at").expect("understood");
    assert_eq!(read.groups, ["web".to_owned()].into());
    let within = "10.0.0.0/8".parse().expect("a block");
    let except = vec!["10.1.0.0/16".parse().expect("a block")];
    let rule = Rule {
        peers: vec![Peer::Addresses { within, except }],
        ports: vec![80..=90],
    };
    let expected = Policy {
        name: "shop/fence".into(),
        rules: vec![rule],
    };
    assert_eq!(read.policies, vec![expected]);
}

#[test]
fn what_is_not_understood_is_refused_whole_and_named() {
    let group = || Some(Named::Group("web".into()));
    for (message, expected) in [
        (
            with(None, (80, 80)),
            "at.policies[0].rules[0].peers[0]: is absent",
        ),
        (
            with(Some(Named::Group(String::new())), (80, 80)),
            "at.policies[0].rules[0].peers[0].group: is empty",
        ),
        (
            with(block("10.0.0.0", "10.1.0.0/16"), (80, 80)),
            "at.policies[0].rules[0].peers[0].block.within: ",
        ),
        (
            with(block("10.0.0.0/8", "none"), (80, 80)),
            "at.policies[0].rules[0].peers[0].block.except[0]: ",
        ),
        (
            with(group(), (0, 80)),
            "at.policies[0].rules[0].ports[0]: 0 to 80 are not ports",
        ),
        (with(group(), (90, 80)), "at.policies[0].rules[0].ports[0]: "),
        (with(group(), (80, 70_000)), "at.policies[0].rules[0].ports[0]: "),
    ] {
        let refused = network(message, "at").expect_err("refused").to_string();
        assert!(refused.starts_with(expected), "{refused}");
    }
}
