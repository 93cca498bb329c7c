//! The decision whether a connection may reach a workload. [`Authorized`] is made only here, from a [`Peer`];
//! connecting to an application demands one. It reads nothing but what it is given.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use trefoil_api::Identity;
use trefoil_api::network_policy::{Client, Refused, admit};
use trefoil_api::policy::{Asked, Connection, Reason, Verdict, audit, evaluate};

use crate::guard::forwarded_by;
use crate::identify::Peer;
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::{Guard, Workload};

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
    /// The NetworkPolicies that select the workload do not let it in.
    #[error("{0}")]
    Network(Refused),
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
            Self::Network(refused) => refused.names.first().map(String::as_str),
            Self::Policy(Reason::NoPolicy | Reason::Enforced(_)) | Self::NotSynced | Self::Closed(_) => None,
        }
    }
}

/// What policy says of a connection that it allows. No proof of anything: nothing can be connected to by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Which policy allows it, if any has to.
    pub reason: Reason,
    /// Dry-run policies that would deny it.
    pub audit: Vec<String>,
}

impl Allowed {
    /// What the guard of a workload lets pass, it has decided about.
    pub(crate) fn by_guard(guard: &Identity) -> Self {
        Self {
            reason: Reason::Enforced(guard.to_string()),
            audit: Vec::new(),
        }
    }
}

/// Decides whether `peer`, from the address `source`, may reach `destination` of the workload `server`, with what is
/// asked there. Whom the server's own guard forwards it has decided about already, but for NetworkPolicies, which see
/// the client that it forwards. What came as plaintext has passed the network plugin, at the application's own port.
pub fn authorize(
    store: &Store,
    peer: &Peer,
    server: &Workload,
    source: IpAddr,
    destination: SocketAddr,
    asked: Asked<'_>,
) -> Result<Authorized, Denied> {
    if *peer != Peer::Unauthenticated {
        let_in(store, peer.identity(), server, source, destination.port())?;
    }
    let Allowed { reason, audit } = match &server.guard {
        Some(Guard::Waypoint { identity, .. }) if forwarded_by(peer, identity) && store.policies_known() => {
            Allowed::by_guard(identity)
        }
        _ => decide(store, peer.identity(), server, (source, destination), asked)?,
    };
    Ok(Authorized {
        reason,
        audit,
        destination,
    })
}

/// What NetworkPolicies say of a client that comes by a tunnel: by the application's port, as they are written. Its
/// address tells which pod it is, unless that one is known to be somebody else.
pub(crate) fn let_in(
    store: &Store,
    client: Option<&Identity>,
    server: &Workload,
    source: IpAddr,
    port: u16,
) -> Result<(), Denied> {
    if server.network_policies.is_empty() {
        return Ok(());
    }
    let address = source.to_canonical();
    let is_it = |one: &Arc<Workload>| client.is_none_or(|identity| one.identity == *identity);
    let pod = store.workload_at(address).filter(is_it);
    let nobody = BTreeSet::new();
    let client = Client {
        address,
        groups: pod.as_ref().map_or(&nobody, |pod| &pod.groups),
    };
    admit(&server.network_policies, &server.addresses, &client, port).map_err(Denied::Network)
}

/// What is decided about a client that is who it is said to be.
pub fn decide(
    store: &Store,
    client: Option<&Identity>,
    server: &Workload,
    (source, destination): (IpAddr, SocketAddr),
    asked: Asked<'_>,
) -> Result<Allowed, Denied> {
    if !store.policies_known() {
        return Err(Denied::NotSynced);
    }
    if let Some(Guard::Closed(reason)) = &server.guard {
        return Err(Denied::Closed(reason.clone()));
    }
    let guarding = store.snapshot().policies().guarding(server);
    if let Some(unknown) = guarding.unknown {
        return Err(Denied::Policy(Reason::Unknown(unknown)));
    }
    let connection = Connection {
        peer: client,
        source: source.to_canonical(),
        destination: destination.ip().to_canonical(),
        port: destination.port(),
        asked,
    };
    let policies = || guarding.policies.iter().map(AsRef::as_ref);
    match evaluate(policies(), &connection) {
        Verdict::Allow(reason) => Ok(Allowed {
            reason,
            audit: audit(policies(), &connection),
        }),
        Verdict::Deny(reason) => Err(Denied::Policy(reason)),
    }
}
