//! Who the other end of a connection is. A [`Peer`] is made only here: by a proof, or by the namespace that
//! the socket belongs to. Never from what the other end says without proof.

use std::time::SystemTime;

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;
use trefoil_api::Identity;

use crate::tls::{PeerRefused, leaf_identity, leaf_not_after};

/// The other end of a connection, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Proven by its certificate.
    #[non_exhaustive]
    Verified(Identity),
    /// Served by this very process: known by the namespace that its socket belongs to.
    #[non_exhaustive]
    SameNode(Identity),
    /// Named by a waypoint that is believed.
    #[non_exhaustive]
    Forwarded {
        /// The client.
        identity: Identity,
        /// The waypoint that vouches for it.
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

    /// A workload whose sockets this process holds.
    pub(crate) fn same_node(identity: Identity) -> Self {
        Self::SameNode(identity)
    }

    /// The identity that policy is evaluated with.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Verified(identity) | Self::SameNode(identity) | Self::Forwarded { identity, .. } => {
                Some(identity)
            }
            Self::Unauthenticated => None,
        }
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
