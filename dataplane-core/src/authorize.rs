//! The decision whether a connection may reach a workload. [`Authorized`] is made only here, from a [`Peer`];
//! connecting to an application demands one. It reads nothing but what it is given.

use std::net::{IpAddr, SocketAddr};

use trefoil_api::policy::{Connection, Reason, Request, Verdict, audit, evaluate};

use crate::Store;
use crate::identify::Peer;
use crate::state::{Guard, Workload};

#[cfg(test)]
mod tests;

/// Proof that policy allows a connection of a peer to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    reason: Reason,
    audit: Vec<String>,
    destination: SocketAddr,
}

impl Authorized {
    /// Which policy allowed it, if any had to.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Dry-run policies that would have denied it.
    #[must_use]
    pub fn audit(&self) -> &[String] {
        &self.audit
    }

    /// What the proof is for.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }
}

/// Why a connection was refused by policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A policy denies it, or none of those that would have had to allows it.
    #[error("{0}")]
    Policy(Reason),
    /// Policies were never received: nothing can be decided.
    #[error("policies have not been received yet: closed until they are")]
    NotSynced,
    /// The workload's guard is closed.
    #[error("closed: {0}")]
    Closed(String),
}

impl Denied {
    /// The policy that is to blame, where it is one.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::Policy(Reason::Matched(policy) | Reason::Unknown(policy)) => Some(policy),
            Self::Policy(Reason::NoneMatched(policies)) => policies.first().map(String::as_str),
            Self::Policy(Reason::NoPolicy | Reason::Enforced(_)) | Self::NotSynced | Self::Closed(_) => None,
        }
    }
}

/// Decides whether `peer`, from the address `source`, may reach `destination` of the workload `server`, with this
/// request where one is read. Whom the server's own guard forwards it has decided about already.
pub fn authorize(
    store: &Store,
    peer: &Peer,
    server: &Workload,
    source: IpAddr,
    destination: SocketAddr,
    request: Option<Request<'_>>,
) -> Result<Authorized, Denied> {
    if !store.policies_known() {
        return Err(Denied::NotSynced);
    }
    match (&server.guard, peer) {
        (Some(Guard::Closed(reason)), _) => return Err(Denied::Closed(reason.clone())),
        (Some(Guard::Waypoint { identity, .. }), Peer::Forwarded { by, .. }) if by == identity => {
            return Ok(Authorized {
                reason: Reason::Enforced(by.to_string()),
                audit: Vec::new(),
                destination,
            });
        }
        _ => {}
    }
    let guarding = store.snapshot().policies().guarding(server);
    if let Some(unknown) = guarding.unknown {
        return Err(Denied::Policy(Reason::Unknown(unknown)));
    }
    let connection = Connection {
        peer: peer.identity(),
        source: source.to_canonical(),
        destination: destination.ip().to_canonical(),
        port: destination.port(),
        request,
    };
    let policies = || guarding.policies.iter().map(AsRef::as_ref);
    match evaluate(policies(), &connection) {
        Verdict::Allow(reason) => Ok(Authorized {
            reason,
            audit: audit(policies(), &connection),
            destination,
        }),
        Verdict::Deny(reason) => Err(Denied::Policy(reason)),
    }
}
