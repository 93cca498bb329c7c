//! What redirects a pod's traffic, as plain data: a pure function from the facts about a pod to an nftables
//! table. The table has fixed chains, which stay from enrolment until the pod ends (they keep connection
//! tracking and source preservation alive), and target chains, which alone differ between planes: a switch
//! replaces those. No I/O, no netlink: [`crate::kernel`] installs what is computed here.

use std::collections::BTreeSet;

use ipnet::IpNet;
use nlink::netlink::nftables::{CtState, CtStatus, Field, Match, MatchOp, RuleSpec, Stmt, Value, Verdict};
use trefoil_api::names::{mark, port, probe, uid};
use trefoil_api::proto::trefoil::v1::Plane;

pub mod annotations;
pub mod dns;
pub mod host;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use table::text;
pub use table::{AddressSet, Chain, Hook, RuleError, Table, TimedSet};
use table::{jump, redirect, reject_with_reset, returns, socket_user};

/// Name of the table in a pod's namespace.
pub const POD_TABLE: &str = "trefoil";
/// Routing table that delivers replies of source-preserving connections locally.
pub const ROUTE_TABLE: u32 = 100;
/// Preference of the routing rule that leads to [`ROUTE_TABLE`].
pub const ROUTE_PREFERENCE: u32 = 32764;

/// Chain with the outbound redirect target.
pub const OUTBOUND: &str = "outbound";
/// Chain with the inbound redirect target.
pub const INBOUND: &str = "inbound";
/// Chain that refuses direct dials of the planes' ports.
pub const DIRECT: &str = "direct";

/// Plane ports that nobody may dial without having been redirected there.
const NEVER_DIALLED: [u16; 7] = [
    port::OUTBOUND,
    port::INBOUND,
    port::SIDECAR_OUTBOUND,
    port::SIDECAR_INBOUND,
    port::SIDECAR_HBONE,
    port::DNS,
    port::SIDECAR_DNS,
];

/// The ports at which a plane listens for redirected connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanePorts {
    /// Captured outbound connections.
    pub outbound: u16,
    /// Captured inbound plaintext.
    pub inbound: u16,
    /// HBONE.
    pub hbone: u16,
    /// Captured DNS queries. A plane that does not listen there gets none.
    pub dns: u16,
}

impl PlanePorts {
    /// The ports of a plane; none of `none`.
    #[must_use]
    pub fn of(plane: Plane) -> Option<Self> {
        match plane {
            Plane::Node => Some(Self {
                outbound: port::OUTBOUND,
                inbound: port::INBOUND,
                hbone: port::HBONE,
                dns: port::DNS,
            }),
            Plane::Sidecar => Some(Self {
                outbound: port::SIDECAR_OUTBOUND,
                inbound: port::SIDECAR_INBOUND,
                hbone: port::SIDECAR_HBONE,
                dns: port::SIDECAR_DNS,
            }),
            Plane::None | Plane::Unspecified => None,
        }
    }
}

/// What of a pod the rules depend on, besides its plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// It was created with a sidecar, whose own traffic is exempt.
    pub has_sidecar: bool,
    /// Its plane answers its DNS queries.
    pub captures_dns: bool,
    /// Inbound ports that are left alone.
    pub excluded_inbound: BTreeSet<u16>,
    /// Outbound ports that are left alone.
    pub excluded_outbound: BTreeSet<u16>,
    /// Outbound destinations that are left alone.
    pub excluded_destinations: BTreeSet<IpNet>,
    /// Ports that the pod's probes and lifecycle hooks declare.
    pub probe_ports: BTreeSet<u16>,
}

/// The table of a pod on a plane. `Plane::None` is the enrolled but not redirected state: everything but
/// the targets.
#[must_use]
pub fn pod_table(facts: &PodFacts, plane: Plane) -> Table {
    let fixed = |name, hook, rules| Chain {
        name,
        hook: Some(hook),
        rules,
    };
    let target = |name, rules| Chain {
        name,
        hook: None,
        rules,
    };
    let outgoing = dns::jumps().into_iter().chain([for_tcp(OUTBOUND)]).collect();
    let mut chains = vec![
        fixed("mark_in", Hook::FilterPrerouting, vec![save_mark()]),
        fixed("mark_out", Hook::RouteOutput, vec![restore_mark()]),
        fixed("nat_in", Hook::NatPrerouting, vec![for_tcp(INBOUND)]),
        fixed("nat_out", Hook::NatOutput, outgoing),
        fixed("direct_in", Hook::FilterInput, vec![unredirected(DIRECT)]),
        target(DIRECT, refuse_direct()),
    ];
    let (inbound, outbound) = match PlanePorts::of(plane) {
        Some(ports) => (inbound(facts, plane, ports), outbound(facts, ports)),
        None => (Vec::new(), Vec::new()),
    };
    chains.push(target(INBOUND, inbound));
    chains.push(target(OUTBOUND, outbound));
    chains.extend(dns::fixed_chains());
    chains.extend(dns::target_chains(facts, plane));
    Table {
        name: POD_TABLE,
        sets: Vec::new(),
        timed: vec![dns::answering_planes()],
        chains,
    }
}

/// The table of a pod that just left a plane: as one of no plane, but tunnels still reach the sidecar if that was
/// its plane. Peers that have not heard of it yet are served, never refused.
#[must_use]
pub fn leaving_table(facts: &PodFacts, left: Plane) -> Table {
    let mut table = pod_table(facts, Plane::None);
    if left == Plane::Sidecar {
        let inbound = table.chains.iter_mut().filter(|chain| chain.name == INBOUND);
        for chain in inbound {
            let hbone = RuleSpec::new().then(Match::eq(Field::TcpDport, port::HBONE));
            chain.rules.push(redirect(hbone, port::SIDECAR_HBONE));
        }
    }
    table
}

/// Remembers that a connection keeps its client's address: its first packet, from the node proxy, comes in
/// over loopback with the proxy's mark.
fn save_mark() -> RuleSpec {
    RuleSpec::new()
        .then(marked(mark::PROXY))
        .then(Stmt::SetCtMark(mark::SOURCE_PRESERVED))
}

/// Gives replies of such a connection the mark that routes them back to the proxy.
fn restore_mark() -> RuleSpec {
    RuleSpec::new()
        .then(Match::eq(
            Field::CtMark,
            Value::Masked {
                value: mark::SOURCE_PRESERVED.into(),
                mask: mark::MASK.into(),
            },
        ))
        .then(Stmt::RestoreMarkFromCt)
}

fn for_tcp(chain: &'static str) -> RuleSpec {
    jump(RuleSpec::new().then(Match::eq(Field::L4Proto, table::TCP)), chain)
}

/// New connections that no redirect led here. Those that an older redirect leads here keep coming.
fn unredirected(chain: &'static str) -> RuleSpec {
    let no_redirect = Value::Masked {
        value: 0,
        mask: CtStatus::DST_NAT.bits().into(),
    };
    let spec = RuleSpec::new()
        .then(Match::eq(Field::L4Proto, table::TCP))
        .then(Match::eq(Field::CtState, CtState::NEW))
        .then(Match::new(Field::CtStatus, MatchOp::Eq, no_redirect));
    jump(spec, chain)
}

fn refuse_direct() -> Vec<RuleSpec> {
    NEVER_DIALLED
        .iter()
        .map(|&port| reject_with_reset(RuleSpec::new().then(Match::eq(Field::TcpDport, port))))
        .collect()
}

fn inbound(facts: &PodFacts, plane: Plane, ports: PlanePorts) -> Vec<RuleSpec> {
    // What comes in over loopback is the pod itself or a plane that delivers to it.
    let mut rules = vec![returns(Match::eq(Field::Iifname, "lo"))];
    for &declared in &facts.probe_ports {
        for source in [
            Match::eq(Field::Ip4Saddr, probe::SOURCE_V4),
            Match::eq(Field::Ip6Saddr, probe::SOURCE_V6),
        ] {
            let spec = RuleSpec::new().then(source);
            rules.push(
                spec.then(Match::eq(Field::TcpDport, declared))
                    .then(Verdict::Return),
            );
        }
    }
    for port in NEVER_DIALLED {
        rules.push(returns(Match::eq(Field::TcpDport, port)));
    }
    let hbone = RuleSpec::new().then(Match::eq(Field::TcpDport, port::HBONE));
    rules.push(match plane {
        Plane::Sidecar => redirect(hbone, ports.hbone),
        _ => hbone.then(Verdict::Return),
    });
    for &port in &facts.excluded_inbound {
        rules.push(returns(Match::eq(Field::TcpDport, port)));
    }
    rules.push(redirect(tcp(), ports.inbound));
    rules
}

fn outbound(facts: &PodFacts, ports: PlanePorts) -> Vec<RuleSpec> {
    let mut rules = left_alone(facts);
    for &port in &facts.excluded_outbound {
        rules.push(returns(Match::eq(Field::TcpDport, port)));
    }
    rules.push(redirect(tcp(), ports.outbound));
    rules
}

/// What of the traffic that leaves no plane takes, whatever its port.
fn left_alone(facts: &PodFacts) -> Vec<RuleSpec> {
    let mut rules = vec![
        returns(marked(mark::PROXY)),
        returns(marked(mark::SOURCE_PRESERVED)),
    ];
    if facts.has_sidecar {
        rules.push(socket_user(uid::SIDECAR).then(Verdict::Return));
    }
    // A pod that calls itself, by whatever address, goes over loopback.
    rules.push(returns(Match::eq(Field::Oifname, "lo")));
    rules.push(returns(destination(&table::LOOPBACK_V4)));
    rules.push(returns(destination(&table::LOOPBACK_V6)));
    // A link-local destination is meaningless without its interface, which no proxy learns.
    rules.push(returns(destination(&table::LINK_LOCAL_V6)));
    rules.push(returns(Match::eq(Field::Ip4Daddr, probe::SOURCE_V4)));
    rules.push(returns(Match::eq(Field::Ip6Daddr, probe::SOURCE_V6)));
    for range in &facts.excluded_destinations {
        rules.push(returns(destination(range)));
    }
    rules
}

fn tcp() -> RuleSpec {
    RuleSpec::new().then(Match::eq(Field::L4Proto, table::TCP))
}

fn marked(value: u32) -> Match {
    let masked = Value::Masked {
        value: value.into(),
        mask: mark::MASK.into(),
    };
    Match::eq(Field::Mark, masked)
}

fn destination(range: &IpNet) -> Match {
    let (field, family) = match range {
        IpNet::V4(_) => (Field::Ip4Daddr, table::FAMILY_V4),
        IpNet::V6(_) => (Field::Ip6Daddr, table::FAMILY_V6),
    };
    // There is no way to compare no bits: everything of a family is the family.
    if range.prefix_len() == 0 {
        return Match::eq(Field::NfProto, family);
    }
    Match::eq(field, Value::Prefix(range.network(), range.prefix_len()))
}
