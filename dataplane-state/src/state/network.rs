//! What NetworkPolicies say of a workload, from its message: all of it or nothing. A peer or a port that is not
//! understood never reads as "everybody" or "every port".

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use trefoil_api::network_policy::{Peer, Policy, Rule};
use trefoil_api::proto::trefoil::v1 as message;

use super::convert::{Malformed, each, required};

#[cfg(test)]
mod tests;

/// As a client and as a server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// The groups that it is in.
    pub(super) groups: BTreeSet<String>,
    /// The policies that select it.
    pub(super) policies: Vec<Policy>,
}

/// From the extension at this path.
pub(super) fn network(from: message::Network, at: &str) -> Result<Network, Malformed> {
    Ok(Network {
        policies: each(&from.policies, &format!("{at}.policies"), policy)?,
        groups: from.groups.into_iter().collect(),
    })
}

fn policy(from: &message::NetworkPolicy, at: &str) -> Result<Policy, Malformed> {
    required(&from.name, &format!("{at}.name"))?;
    Ok(Policy {
        name: from.name.clone(),
        rules: each(&from.rules, &format!("{at}.rules"), rule)?,
    })
}

fn rule(from: &message::NetworkRule, at: &str) -> Result<Rule, Malformed> {
    Ok(Rule {
        peers: each(&from.peers, &format!("{at}.peers"), peer)?,
        ports: each(&from.ports, &format!("{at}.ports"), ports)?,
    })
}

fn peer(from: &message::NetworkPeer, at: &str) -> Result<Peer, Malformed> {
    use message::network_peer::Peer as From;
    match &from.peer {
        Some(From::Group(group)) => {
            required(group, &format!("{at}.group"))?;
            Ok(Peer::Group(group.clone()))
        }
        Some(From::Block(block)) => Ok(Peer::Addresses {
            within: parsed(&block.within, &format!("{at}.block.within"))?,
            except: each(&block.except, &format!("{at}.block.except"), |text, at| {
                parsed(text, at)
            })?,
        }),
        None => Err(Malformed::new(at, "is absent or not known here")),
    }
}

fn ports(from: &message::PortRange, at: &str) -> Result<RangeInclusive<u16>, Malformed> {
    let port = |number: u32| u16::try_from(number).ok().filter(|port| *port > 0);
    match (port(from.first), port(from.last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => {
            let problem = format!("{} to {} are not ports (1 to 65535)", from.first, from.last);
            Err(Malformed::new(at, problem))
        }
    }
}

fn parsed<T: FromStr<Err: Display>>(text: &str, at: &str) -> Result<T, Malformed> {
    text.parse()
        .map_err(|error: T::Err| Malformed::new(at, format!("{text:?}: {error}")))
}
