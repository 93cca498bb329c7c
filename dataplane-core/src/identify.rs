//! Who the other end of a connection is. A [`Peer`] is made only here: by a proof, or by the namespace that
//! the socket belongs to. Never from what the other end says without proof.

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;
use trefoil_api::Identity;
use trefoil_api::identity::NotAnIdentity;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

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
#[derive(Debug, thiserror::Error)]
pub enum Unidentified {
    /// It sent no certificate, or the handshake is not complete.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the peer's certificate cannot be read: {0}")]
    Malformed(String),
    /// A SPIFFE certificate has exactly one URI (X.509-SVID specification, section 2).
    #[error("the peer's certificate has {0} URI names, not exactly one")]
    NotOneName(usize),
    /// Its one name is something else.
    #[error("the peer's certificate: {0}")]
    NotAnIdentity(#[from] NotAnIdentity),
}

impl Peer {
    /// The client of a completed TLS handshake, whose chain the handshake has verified.
    pub fn verified(connection: &ServerConnection) -> Result<Self, Unidentified> {
        let leaf = connection
            .peer_certificates()
            .filter(|_| !connection.is_handshaking())
            .and_then(<[_]>::first)
            .ok_or(Unidentified::NoCertificate)?;
        named(leaf).map(Self::Verified)
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

/// The one identity that a certificate names.
fn named(leaf: &CertificateDer<'_>) -> Result<Identity, Unidentified> {
    let malformed = |error: &dyn std::fmt::Display| Unidentified::Malformed(error.to_string());
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| malformed(&error))?;
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| malformed(&error))?;
    let names = extension
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    let uris: Vec<&str> = names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [one] => Ok(one.parse()?),
        several => Err(Unidentified::NotOneName(several.len())),
    }
}
