//! DNS capture, as plain data. Queries go to the plane's port only while the plane proves that it answers: it sends
//! packets from that port, over loopback, to itself if to nobody else, and a rule remembers the port for a moment. A plane
//! that is dead, stuck, or too old to know of this is so out of the way by itself, without anybody who notices. The
//! resolver that was asked is put back into what the plane receives: of a datagram nothing else would tell it.

use std::time::Duration;

use nlink::netlink::nftables::expr::{DynsetExpr, DynsetOp, Expr, LookupExpr};
use nlink::netlink::nftables::{
    CtDirection, CtKey, CtStatus, Field, Match, MatchOp, PacketField, PayloadBase, PayloadCsum, Register,
    RuleSpec, Stmt, Verdict,
};
use trefoil_api::names::{mark, port, uid};
use trefoil_api::proto::trefoil::v1::Plane;

use super::table::{self, TimedSet, jump, redirect, socket_user};
use super::{Chain, Hook, PlanePorts, PodFacts, left_alone, marked};

/// The set of the ports at which a plane answers now.
pub const ANSWERING: &str = "answering";
/// For how long a plane counts as answering after it said so: three of its pulses. Queries that a dead plane gets
/// meanwhile are lost, and repeated by whoever asked after 5 s, as a rule.
const SILENCE: Duration = Duration::from_millis(1500);
/// Where resolvers are asked.
const DOMAIN: u16 = 53;
/// Chain with the redirect target of queries.
const CAPTURE: &str = "dns";
/// Chain that keeps queries out of connection tracking where no plane answers them.
const BYPASS: &str = "dns_bypass";
/// The same of the answers: they would be taken for connections of the resolver's, that clash with the clients'.
const BYPASS_BACK: &str = "dns_bypass_back";
/// The ports of both planes, as `NEVER_DIALLED` has them: queries that an older redirect leads there keep coming.
const PLANES: [u16; 2] = [port::DNS, port::SIDECAR_DNS];

/// Where it is remembered which planes answer.
pub(super) fn answering_planes() -> TimedSet {
    TimedSet { name: ANSWERING }
}

/// What leads queries to the chain with the target, before anything else is said about TCP.
pub(super) fn jumps() -> [RuleSpec; 2] {
    [Field::UdpDport, Field::TcpDport].map(|field| jump(query(field), CAPTURE))
}

/// The chains that are the same for every plane.
pub(super) fn fixed_chains() -> Vec<Chain> {
    let chain = |name, hook, rules| Chain {
        name,
        hook: Some(hook),
        rules,
    };
    let node = from_plane(port::DNS).then(marked(mark::PROXY));
    let mut sidecar = socket_user(uid::SIDECAR);
    sidecar.extend(from_plane(port::SIDECAR_DNS).items().iter().cloned());
    let pulse = [node, sidecar].map(remember);
    let delivered = PLANES.into_iter().flat_map(delivered).collect();
    vec![
        chain("dns_pulse", Hook::FilterOutput, pulse.into()),
        chain(
            "dns_untracked",
            Hook::RawOutput,
            vec![jump(query(Field::UdpDport), BYPASS)],
        ),
        chain(
            "dns_untracked_back",
            Hook::RawPrerouting,
            vec![jump(
                RuleSpec::new().then(Match::eq(Field::UdpSport, DOMAIN)),
                BYPASS_BACK,
            )],
        ),
        chain("dns_in", Hook::FilterInput, delivered),
    ]
}

/// The chains that a switch replaces.
pub(super) fn target_chains(facts: &PodFacts, plane: Plane) -> [Chain; 3] {
    let (mut capture, mut bypass, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let captured = facts.captures_dns && !facts.excluded_outbound.contains(&DOMAIN);
    if let Some(ports) = PlanePorts::of(plane).filter(|_| captured) {
        capture = left_alone(facts);
        capture.push(redirect(answers(ports.dns), ports.dns));
        let tcp = RuleSpec::new().then(Match::eq(Field::L4Proto, table::TCP));
        capture.push(tcp.then(Verdict::Accept));
        bypass = left_alone(facts);
        bypass.push(answers(ports.dns).then(Verdict::Return));
        // Also what a client repeats: its entry in connection tracking still leads to the plane that is gone.
        bypass.push(RuleSpec::new().then(Stmt::Notrack));
        back = vec![
            answers(ports.dns).then(Verdict::Return),
            RuleSpec::new().then(Stmt::Notrack),
        ];
    }
    [(CAPTURE, capture), (BYPASS, bypass), (BYPASS_BACK, back)].map(|(name, rules)| Chain {
        name,
        hook: None,
        rules,
    })
}

fn query(field: Field) -> RuleSpec {
    RuleSpec::new().then(Match::eq(field, DOMAIN))
}

/// What a plane sends from its DNS port. Who else sends from there is told apart by the mark or the user.
fn from_plane(port: u16) -> RuleSpec {
    RuleSpec::new()
        .then(Match::eq(Field::UdpSport, port))
        .then(Match::eq(Field::Oifname, "lo"))
}

fn remember(sent: RuleSpec) -> RuleSpec {
    let dynset = DynsetExpr::new(DynsetOp::Update, ANSWERING, Register::R0).timeout(SILENCE);
    sent.then(Stmt::Dynset {
        field: PacketField::UdpSport,
        dynset,
    })
}

/// Whether the plane at a port answers.
fn answers(port: u16) -> RuleSpec {
    RuleSpec::new()
        .then(in_register(port))
        .then(Expr::from(LookupExpr::new(ANSWERING, Register::R0)))
}

fn in_register(port: u16) -> Expr {
    Expr::Immediate {
        dreg: Register::R0,
        data: port.to_be_bytes().to_vec(),
    }
}

/// Puts the resolver that was asked back into redirected queries; nobody else may speak to the plane's port.
fn delivered(port: u16) -> [RuleSpec; 3] {
    let arrived = || RuleSpec::new().then(Match::eq(Field::UdpDport, port));
    let redirected = |family: u8| {
        arrived()
            .then(Match::eq(Field::CtStatus, CtStatus::DST_NAT))
            .then(Match::eq(Field::NfProto, family))
    };
    let v4 = redirected(table::FAMILY_V4)
        .then(asked(CtKey::DstIp))
        .then(Expr::PayloadSet {
            sreg: Register::R0,
            base: PayloadBase::Network,
            offset: 16,
            len: 4,
            csum: PayloadCsum::Inet,
            csum_offset: 10,
            l4_pseudo_header: true,
        });
    let v6 = redirected(table::FAMILY_V6)
        .then(asked(CtKey::DstIp6))
        .then(Expr::PayloadSet {
            sreg: Register::R0,
            base: PayloadBase::Network,
            offset: 24,
            len: 16,
            csum: PayloadCsum::None,
            csum_offset: 0,
            l4_pseudo_header: true,
        });
    let stranger = arrived().then(Match::new(Field::Iifname, MatchOp::Ne, "lo"));
    [v4, v6, stranger.then(Verdict::Drop)]
}

fn asked(key: CtKey) -> Expr {
    Expr::CtDirectional {
        dreg: Register::R0,
        key,
        direction: CtDirection::Original,
    }
}
