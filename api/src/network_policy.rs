//! NetworkPolicies (`networking.k8s.io/v1`), as far as they say what may come into a pod: the verdict on one TCP
//! connection, by the application's port, whatever port it was carried to. Selectors are resolved before: a client
//! is judged by the groups that it is in. It never decides who a client is, and never reads an object.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
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
    /// One of which must be dialled; none: every port. (A rule of nothing but other protocols than TCP is no rule:
    /// whoever reads the object leaves it out.)
    pub ports: Vec<Port>,
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

/// Where they may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// Ports by number.
    Numbers(RangeInclusive<u16>),
    /// The port of the selected pod that has this name.
    Named(String),
}

/// A pod, as the server of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Addresses of its node, whose traffic no policy keeps away.
    pub node: &'a [IpAddr],
    /// Its containers' TCP ports by name.
    pub ports: &'a BTreeMap<String, u16>,
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

/// Whether the policies that select a server let a client in to a port of its application: all of them together say
/// what may come in, and where there are none, everything may. No policy keeps a pod from itself, or its node from it.
pub fn admit<'p>(
    selecting: impl IntoIterator<Item = &'p Policy>,
    server: &Server<'_>,
    client: &Client<'_>,
    port: u16,
) -> Result<(), Refused> {
    let address = client.address.to_canonical();
    let mut names = Vec::new();
    for policy in selecting {
        if policy.rules.iter().any(|rule| rule.admits(server, client, port)) {
            return Ok(());
        }
        names.push(policy.name.clone());
    }
    if names.is_empty() || server.addresses.contains(&address) || server.node.contains(&address) {
        return Ok(());
    }
    Err(Refused {
        names,
        client: address,
        port,
    })
}

impl Rule {
    fn admits(&self, server: &Server<'_>, client: &Client<'_>, port: u16) -> bool {
        let of_peer = |peer: &Peer| peer.is(client);
        let of_port = |one: &Port| match one {
            Port::Numbers(range) => range.contains(&port),
            Port::Named(name) => server.ports.get(name) == Some(&port),
        };
        (self.peers.is_empty() || self.peers.iter().any(of_peer))
            && (self.ports.is_empty() || self.ports.iter().any(of_port))
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
