//! Who the other end of a connection is. A [`Peer`] is made only here.

use trefoil_api::Identity;

/// The other end of a connection, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Proven by its certificate.
    Verified(Identity),
    /// Served by this very process: known by the namespace that its socket belongs to.
    SameNode(Identity),
    /// Named by a waypoint that is believed.
    Forwarded {
        /// The client.
        identity: Identity,
        /// The waypoint that vouches for it.
        by: Identity,
    },
    /// Plaintext from outside the mesh.
    Unauthenticated,
}

impl Peer {
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
}
