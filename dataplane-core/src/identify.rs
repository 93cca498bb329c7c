//! Who the other end of a connection is. A [`Peer`] is made only here: by a proof, by the namespace that the
//! socket belongs to, or by the word of one who is believed. Never from what anybody else says.

use std::net::IpAddr;
use std::time::SystemTime;

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;
use trefoil_api::Identity;

use crate::guard::guards;
use crate::hbone::Claim;
use trefoil_dataplane_state::state::{Guard, Workload};
use trefoil_dataplane_state::tls::{PeerRefused, leaf_identity, leaf_not_after};

#[cfg(test)]
mod tests;

/// The other end of a connection, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Proven by its certificate.
    #[non_exhaustive]
    Verified(Identity),
    /// Served by this very process: known by the namespace that its socket belongs to.
    #[non_exhaustive]
    SameNode(Identity),
    /// Named by one who is believed.
    #[non_exhaustive]
    Forwarded {
        /// The client; none if it has proved nothing.
        identity: Option<Identity>,
        /// Who vouches for it.
        by: Identity,
    },
    /// Plaintext from outside the mesh.
    Unauthenticated,
}

/// Why a TLS peer has no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// It sent no certificate, or the handshake is not complete.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// Its certificate does not prove one identity.
    #[error("the peer: {0}")]
    Refused(#[from] PeerRefused),
    /// It is believed, but what it says of its client is not readable.
    #[error("the forwarded identity is not readable")]
    Claim,
}

/// Who a stream's client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The client.
    pub peer: Peer,
    /// Another was claimed, and not believed.
    pub stripped: bool,
}

/// Until when the proof of a client's identity holds.
pub fn proven_until(connection: &ServerConnection) -> Result<SystemTime, Unidentified> {
    Ok(leaf_not_after(leaf(connection)?)?)
}

fn leaf(connection: &ServerConnection) -> Result<&CertificateDer<'static>, Unidentified> {
    connection
        .peer_certificates()
        .filter(|_| !connection.is_handshaking())
        .and_then(<[_]>::first)
        .ok_or(Unidentified::NoCertificate)
}

impl Peer {
    /// The client of a completed TLS handshake, whose chain the handshake has verified.
    pub fn verified(connection: &ServerConnection) -> Result<Self, Unidentified> {
        Ok(Self::Verified(leaf_identity(leaf(connection)?)?))
    }

    /// The client of one stream of a tunnel: its other end, or whom that one speaks for where it is `believed`
    /// ([`is_guard`], [`hands_over`]).
    pub fn heard(self, claim: Option<Claim>, believed: bool) -> Result<Heard, Unidentified> {
        let (Some(claim), Self::Verified(by)) = (&claim, &self) else {
            return Ok(Heard {
                stripped: claim.is_some(),
                peer: self,
            });
        };
        let identity = match claim {
            _ if !believed => {
                return Ok(Heard {
                    peer: self,
                    stripped: true,
                });
            }
            Claim::Client(identity) => Some(identity.clone()),
            Claim::Nobody => None,
            Claim::Unreadable => return Err(Unidentified::Claim),
        };
        let by = by.clone();
        Ok(Heard {
            peer: Self::Forwarded { identity, by },
            stripped: false,
        })
    }

    /// A workload whose sockets this process holds.
    pub(crate) fn same_node(identity: Identity) -> Self {
        Self::SameNode(identity)
    }

    /// The identity that policy is evaluated with.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Verified(identity) | Self::SameNode(identity) => Some(identity),
            Self::Forwarded { identity, .. } => identity.as_ref(),
            Self::Unauthenticated => None,
        }
    }

    /// What is said of it to one who believes us.
    #[must_use]
    pub fn claim(&self) -> Claim {
        self.identity()
            .map_or(Claim::Nobody, |identity| Claim::Client(identity.clone()))
    }

    /// The path that the connection took, as logs and metrics name it.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self {
            Self::Verified(_) | Self::Forwarded { .. } => "mutual_tls",
            Self::SameNode(_) => "same_node",
            Self::Unauthenticated => "none",
        }
    }
}

/// Whether a workload with this guard believes the other end of a tunnel: it is the one waypoint that guards it.
#[must_use]
pub fn is_guard(peer: &Peer, guard: Option<&Guard>) -> bool {
    match (peer, guard) {
        (Peer::Verified(peer), Some(Guard::Waypoint { identity, .. })) => peer == identity,
        _ => false,
    }
}

/// Whether a waypoint, whose own workload is `own`, believes the other end of a tunnel, for `destination` alone: it
/// is that workload, by its identity and by its address, and this waypoint is its guard.
#[must_use]
pub fn hands_over(peer: &Peer, source: IpAddr, destination: &Workload, own: &Workload) -> bool {
    let Peer::Verified(peer) = peer else {
        return false;
    };
    guards(own, destination)
        && *peer == destination.identity
        && destination.addresses.contains(&source.to_canonical())
}
