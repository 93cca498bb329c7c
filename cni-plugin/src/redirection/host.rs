//! The host's table, which makes kubelet's probes recognisable: its sockets are marked on the way out by its
//! user, and what is so marked and goes to an enrolled pod gets a reserved source address. Nobody else's
//! packets may carry that address through the host. Pure, like the pods' tables.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nlink::netlink::nftables::{Field, Match, NatType, RuleSpec, Stmt, Value, Verdict};
use trefoil_api::names::{mark, probe};

use super::table::{self, AddressSet, Chain, Hook, Table, socket_user};

/// Name of the table in the host's namespace.
pub const HOST_TABLE: &str = "trefoil-host";
/// Mark of probes between the output hook and postrouting, compared under [`mark::MASK`].
const PROBE_MARK: u32 = 0x158;
const PODS_V4: &str = "pods4";
const PODS_V6: &str = "pods6";

/// The table of a host.
#[must_use]
pub fn host_table(kubelet_user: u32, pods: &BTreeSet<IpAddr>) -> Table {
    let set = |name, v6| AddressSet {
        name,
        v6,
        elements: pods
            .iter()
            .copied()
            .filter(|address| address.is_ipv6() == v6)
            .collect(),
    };
    let chain = |name, hook, rules| Chain {
        name,
        hook: Some(hook),
        rules,
    };
    Table {
        name: HOST_TABLE,
        sets: vec![set(PODS_V4, false), set(PODS_V6, true)],
        timed: Vec::new(),
        chains: vec![
            chain(
                "mark_probes",
                Hook::FilterOutput,
                vec![
                    mark_probe(kubelet_user, Field::Ip4Daddr, PODS_V4),
                    mark_probe(kubelet_user, Field::Ip6Daddr, PODS_V6),
                ],
            ),
            chain(
                "rewrite_probes",
                Hook::NatPostrouting,
                vec![
                    rewrite(Field::Ip4Daddr, PODS_V4, probe::SOURCE_V4.into()),
                    rewrite(Field::Ip6Daddr, PODS_V6, probe::SOURCE_V6.into()),
                ],
            ),
            chain(
                "drop_forged",
                Hook::FilterForward,
                vec![
                    forged(Match::eq(Field::Ip4Saddr, probe::SOURCE_V4)),
                    forged(Match::eq(Field::Ip6Saddr, probe::SOURCE_V6)),
                ],
            ),
        ],
    }
}

fn mark_probe(user: u32, destination: Field, pods: &str) -> RuleSpec {
    socket_user(user)
        .then(Match::eq(Field::L4Proto, table::TCP))
        .then(Match::eq(destination, Value::set(pods)))
        .then(Stmt::SetMarkMasked {
            value: PROBE_MARK,
            mask: mark::MASK,
        })
}

fn rewrite(destination: Field, pods: &str, source: IpAddr) -> RuleSpec {
    let marked = Value::Masked {
        value: PROBE_MARK.into(),
        mask: mark::MASK.into(),
    };
    RuleSpec::new()
        .then(Match::eq(Field::Mark, marked))
        .then(Match::eq(destination, Value::set(pods)))
        .then(Stmt::NatTo {
            nat_type: NatType::Snat,
            addr: source,
            port: None,
        })
}

fn forged(source: Match) -> RuleSpec {
    RuleSpec::new().then(source).then(Verdict::Drop)
}
