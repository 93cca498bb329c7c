//! NetworkPolicies (`networking.k8s.io/v1`), as far as they say what may come into a pod: the verdict on one TCP
//! connection, by the application's port, whatever port it was carried to. Selectors and the names of ports are
//! resolved before: a client is judged by the groups that it is in. It never decides who a client is, and never
//! reads an object.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// What one policy lets into the pods that it selects; with no rules, nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// Any of which lets in.
    pub rules: Vec<Rule>,
}

/// Whom it lets in, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Of which a client must be one; none: everybody.
    pub peers: Vec<Peer>,
    /// One of which must be dialled; none: every port. (A rule of nothing but other protocols than TCP, or ports that
    /// the pod does not have, is no rule: whoever reads the object leaves it out.)
    pub ports: Vec<RangeInclusive<u16>>,
}

/// Who may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The pods of a group: those that one pair of selectors selects.
    Group(String),
    /// Addresses.
    Addresses {
        /// All of these,
        within: IpNet,
        /// but these.
        except: Vec<IpNet>,
    },
}

/// A client.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The groups that it is in; of one that is no pod, none.
    pub groups: &'a BTreeSet<String>,
}

/// The policies that select a pod and do not let a connection in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NetworkPolicy {} selects the pod and allows no connection from {client} to port {port}", names.join(", "))]
pub struct Refused {
    /// `NAMESPACE/NAME` of each.
    pub names: Vec<String>,
    /// The client's address.
    pub client: IpAddr,
    /// The application's port.
    pub port: u16,
}

/// Whether the policies that select a server with these addresses let a client in to a port of its application: all
/// of them together say what may come in, and where there are none, everything may. No policy keeps a pod from itself.
pub fn admit<'p>(
    selecting: impl IntoIterator<Item = &'p Policy>,
    server: &[IpAddr],
    client: &Client<'_>,
    port: u16,
) -> Result<(), Refused> {
    let address = client.address.to_canonical();
    let mut names = Vec::new();
    for policy in selecting {
        if policy.rules.iter().any(|rule| rule.admits(client, port)) {
            return Ok(());
        }
        names.push(policy.name.clone());
    }
    if names.is_empty() || server.contains(&address) {
        return Ok(());
    }
    Err(Refused {
        names,
        client: address,
        port,
    })
}

impl Rule {
    fn admits(&self, client: &Client<'_>, port: u16) -> bool {
        let of_peer = |peer: &Peer| peer.is(client);
        (self.peers.is_empty() || self.peers.iter().any(of_peer))
            && (self.ports.is_empty() || self.ports.iter().any(|range| range.contains(&port)))
    }
}

impl Peer {
    fn is(&self, client: &Client<'_>) -> bool {
        match self {
            Self::Group(group) => client.groups.contains(group),
            Self::Addresses { within, except } => {
                let address = client.address.to_canonical();
                within.contains(&address) && !except.iter().any(|net| net.contains(&address))
            }
        }
    }
}
