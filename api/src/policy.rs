//! Authorization: compiled once when a policy arrives, evaluated per connection. What cannot be understood
//! whole is refused whole, naming the field; nothing is narrowed or widened.

mod compile;
mod describe;
mod evaluate;
mod http;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;

pub use compile::{InvalidPolicy, compile};
pub use evaluate::{audit, evaluate};
pub use http::{Asked, Headers, Request};

use crate::Identity;

/// A compiled policy: every field was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `namespace/name`, as users know it.
    pub name: String,
    /// Namespace of the policy.
    pub namespace: String,
    /// Which workloads it is for.
    pub scope: Scope,
    /// What a match does.
    pub action: Action,
    /// Evaluated and reported, never enforced.
    pub dry_run: bool,
    rules: Vec<Rule>,
}

/// Which workloads a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every workload of the mesh.
    Mesh,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads that name it.
    Workload,
}

/// What a match does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allow, and thereby close everything that no Allow policy matches.
    Allow,
    /// Deny.
    Deny,
}

/// ANDed clauses of ORed matches.
type Rule = Vec<Vec<Match>>;

/// Kinds are ANDed, the values of a kind ORed; an empty kind matches everything, an empty match nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Match {
    namespaces: Vec<Text>,
    not_namespaces: Vec<Text>,
    principals: Vec<Text>,
    not_principals: Vec<Text>,
    source_ips: Vec<IpNet>,
    not_source_ips: Vec<IpNet>,
    destination_ips: Vec<IpNet>,
    not_destination_ips: Vec<IpNet>,
    destination_ports: Vec<u16>,
    not_destination_ports: Vec<u16>,
    service_accounts: Vec<(String, String)>,
    not_service_accounts: Vec<(String, String)>,
    http: Option<http::Http>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Present,
}

/// What a connection is judged by.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    /// The verified identity of the client; none over plaintext.
    pub peer: Option<&'a Identity>,
    /// The client's address.
    pub source: IpAddr,
    /// The address that the connection is for.
    pub destination: IpAddr,
    /// The application's port.
    pub port: u16,
    /// What is known of what is asked on it.
    pub asked: Asked<'a>,
}

/// The outcome, with the reason that the log, the metric and the command line all show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// May pass.
    Allow(Reason),
    /// Must not.
    Deny(Reason),
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No Allow policy applies to the workload and no Deny policy matched.
    NoPolicy,
    /// This policy matched.
    Matched(String),
    /// Allow policies apply, and none matched.
    NoneMatched(Vec<String>),
    /// A policy that the workload names is not known or was refused: closed until it is.
    Unknown(String),
    /// The waypoint of this identity, which guards the workload, has enforced all of its policy.
    Enforced(String),
}

impl Verdict {
    /// Whether the connection may pass.
    #[must_use]
    pub fn allows(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Allow(reason) | Self::Deny(reason) => reason,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("no policy applies"),
            Self::Matched(policy) => write!(f, "policy {policy}"),
            Self::NoneMatched(policies) => write!(f, "no match in allow policies {}", policies.join(", ")),
            Self::Enforced(waypoint) => write!(f, "enforced by its waypoint, {waypoint}"),
            Self::Unknown(policy) => write!(f, "policy {policy} is not known here: closed until it is"),
        }
    }
}
