//! An nftables table as plain data, which prints as `nft list ruleset` would show it. Knows no pod and no
//! plane, and never speaks to the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nlink::netlink::nftables::expr::Expr;
use nlink::netlink::nftables::{
    BaseChain, ChainName, CmpOp, Family, FilterHook, Match, MetaKey, NatHook, Priority, Register, RuleSpec,
    Stmt, Verdict,
};

/// Protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// Netfilter's number of IPv4.
pub(super) const FAMILY_V4: u8 = 2;
/// Netfilter's number of IPv6.
pub(super) const FAMILY_V6: u8 = 10;
/// `127.0.0.0/8`.
pub(super) const LOOPBACK_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
/// `::1/128`.
pub(super) const LOOPBACK_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));
/// `fe80::/10`.
pub(super) const LINK_LOCAL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
    10,
));

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its named sets.
    pub sets: Vec<AddressSet>,
    /// Its named sets that rules fill.
    pub timed: Vec<TimedSet>,
    /// Its chains. Rules may jump to any of them.
    pub chains: Vec<Chain>,
}

/// A named set of addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    /// Its name.
    pub name: &'static str,
    /// It holds IPv6 addresses, else IPv4.
    pub v6: bool,
    /// Its elements.
    pub elements: BTreeSet<IpAddr>,
}

/// A named set of ports that rules fill, and whose elements go by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedSet {
    /// Its name.
    pub name: &'static str,
}

/// A chain: a base chain if it has a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where it is entered from the kernel.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<RuleSpec>,
}

/// Where a base chain is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before connection tracking.
    RawPrerouting,
    /// Before routing, after connection tracking.
    FilterPrerouting,
    /// Locally delivered packets.
    FilterInput,
    /// Locally sent packets, before connection tracking.
    RawOutput,
    /// Locally sent packets, before they are routed for good.
    FilterOutput,
    /// Forwarded packets.
    FilterForward,
    /// Locally sent packets; routed again if their mark changes.
    RouteOutput,
    /// Destination NAT of what arrives.
    NatPrerouting,
    /// Destination NAT of what is sent.
    NatOutput,
    /// Source NAT, just before anybody else's masquerading.
    NatPostrouting,
}

/// A rule that cannot be written down for the kernel.
#[derive(Debug, thiserror::Error)]
#[error("chain {chain}, rule {index}: cannot be expressed in nftables")]
pub struct RuleError {
    chain: &'static str,
    index: usize,
}

impl Hook {
    /// Type, hook and priority.
    #[must_use]
    pub fn base(self) -> BaseChain {
        match self {
            Self::RawPrerouting => BaseChain::filter(FilterHook::Prerouting, Priority::Raw),
            Self::FilterPrerouting => BaseChain::filter(FilterHook::Prerouting, Priority::Mangle),
            Self::FilterInput => BaseChain::filter(FilterHook::Input, Priority::Filter),
            Self::RawOutput => BaseChain::filter(FilterHook::Output, Priority::Raw),
            Self::FilterOutput => BaseChain::filter(FilterHook::Output, Priority::Mangle),
            Self::FilterForward => BaseChain::filter(FilterHook::Forward, Priority::Filter),
            Self::RouteOutput => BaseChain::route(Priority::Mangle),
            Self::NatPrerouting => BaseChain::nat(NatHook::Prerouting, Priority::DstNat),
            Self::NatOutput => BaseChain::nat(NatHook::Output, Priority::DstNat),
            Self::NatPostrouting => BaseChain::nat(NatHook::Postrouting, Priority::Custom(99)),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::RawPrerouting => "type filter hook prerouting priority raw",
            Self::FilterPrerouting => "type filter hook prerouting priority mangle",
            Self::FilterInput => "type filter hook input priority filter",
            Self::RawOutput => "type filter hook output priority raw",
            Self::FilterOutput => "type filter hook output priority mangle",
            Self::FilterForward => "type filter hook forward priority filter",
            Self::RouteOutput => "type route hook output priority mangle",
            Self::NatPrerouting => "type nat hook prerouting priority dstnat",
            Self::NatOutput => "type nat hook output priority dstnat",
            Self::NatPostrouting => "type nat hook postrouting priority srcnat - 1",
        }
    }
}

impl Chain {
    /// The rules as the kernel would list them: what desired and installed rules are compared by.
    pub fn syntax(&self) -> Result<Vec<String>, RuleError> {
        let chain = self.name;
        self.rules
            .iter()
            .enumerate()
            .map(|(index, rule)| text(rule).ok_or(RuleError { chain, index }))
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "table inet {} {{", self.name)?;
        for set in &self.sets {
            let kind = if set.v6 { "ipv6_addr" } else { "ipv4_addr" };
            let elements: Vec<String> = set.elements.iter().map(ToString::to_string).collect();
            writeln!(
                formatter,
                "  set {} {{ type {kind}; elements = {{ {} }} }}",
                set.name,
                elements.join(", ")
            )?;
        }
        for set in &self.timed {
            writeln!(
                formatter,
                "  set {} {{ type inet_service; flags dynamic, timeout }}",
                set.name
            )?;
        }
        for chain in &self.chains {
            writeln!(formatter, "  chain {} {{", chain.name)?;
            if let Some(hook) = chain.hook {
                writeln!(formatter, "    {}; policy accept;", hook.text())?;
            }
            for rule in &chain.rules {
                let text = text(rule).unwrap_or_else(|| "?".into());
                writeln!(formatter, "    {text}")?;
            }
            writeln!(formatter, "  }}")?;
        }
        writeln!(formatter, "}}")
    }
}

/// A rule as `nft` prints it, or as its expressions where `nft` itself has no words for it; none if the kernel could
/// not be told of it.
pub(crate) fn text(rule: &RuleSpec) -> Option<String> {
    rule.nft_syntax(Family::Inet).or_else(|| {
        let expressions = rule.lower(Family::Inet).ok()?;
        Some(format!("{expressions:?}"))
    })
}

/// A rule that leaves alone what matches.
pub(super) fn returns(condition: Match) -> RuleSpec {
    RuleSpec::new().then(condition).then(Verdict::Return)
}

/// A rule that redirects what matches to a local port.
pub(super) fn redirect(spec: RuleSpec, port: u16) -> RuleSpec {
    spec.then(Stmt::Redirect(Some(port)))
}

/// A rule that enters another chain. The names are constants of this crate: one that the kernel would not
/// take leaves a rule without an effect, which the golden files show.
pub(super) fn jump(spec: RuleSpec, chain: &'static str) -> RuleSpec {
    match ChainName::new(chain) {
        Ok(name) => spec.then(Verdict::JumpTo(name)),
        Err(_) => spec,
    }
}

/// A rule that answers with a TCP reset.
pub(super) fn reject_with_reset(spec: RuleSpec) -> RuleSpec {
    /// `NFT_REJECT_TCP_RST`.
    const TCP_RESET: u32 = 1;
    spec.then(Expr::Reject {
        reject_type: TCP_RESET,
        icmp_code: 0,
    })
}

/// A rule for what a socket of this user sends.
pub(super) fn socket_user(user: u32) -> RuleSpec {
    RuleSpec::new()
        .then(Expr::Meta {
            dreg: Register::R0,
            key: MetaKey::SkUid,
        })
        .then(Expr::Cmp {
            sreg: Register::R0,
            op: CmpOp::Eq,
            data: user.to_ne_bytes().to_vec(),
        })
}
