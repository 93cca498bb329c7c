//! The mesh-wide settings, as the control plane says them. Understood whole or refused: a value that this
//! version does not know never becomes another one.

use std::time::Duration;

use serde::Serialize;
use trefoil_api::Identity;
use trefoil_api::mesh_config::{MAX_AGE_LIMIT, Outbound};
use trefoil_api::proto::trefoil::v1::{self as message, MeshSettings};

use super::Malformed;

#[cfg(test)]
mod tests;

/// What holds in the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// What becomes of connections to addresses that the mesh does not know.
    pub outbound: Outbound,
    /// A tunnel older than this, less up to a fifth, takes no new streams.
    pub connection_max_age: Duration,
    /// Who vouches for identities.
    pub trust_domain: String,
    /// What certificates are signed with now, where the control plane says.
    #[serde(skip)]
    pub authority: Option<InForce>,
}

/// What certificates are signed with, and vouched for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Of the key that signs, as the leaves say it (RFC 5280, section 4.2.1.1).
    pub key_identifier: Vec<u8>,
    /// PEM, as they come with each certificate.
    pub roots: String,
}

/// What the control plane has said of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing, or that there are none; control planes of other meshes never speak of them.
    #[default]
    Nothing,
    /// What was not understood, and nothing before: what it may have guarded is closed.
    Refused,
    /// What holds.
    Settings(Settings),
}

/// Reads the settings.
pub(super) fn settings(from: &MeshSettings) -> Result<Settings, Malformed> {
    let outbound = match message::Outbound::try_from(from.outbound) {
        Ok(message::Outbound::AllowAny) => Outbound::AllowAny,
        Ok(message::Outbound::RegistryOnly) => Outbound::RegistryOnly,
        Ok(message::Outbound::Unspecified) => return Err(Malformed::new("outbound", "is not set")),
        Err(_) => {
            let problem = format!("unknown value {}", from.outbound);
            return Err(Malformed::new("outbound", problem));
        }
    };
    let connection_max_age = Duration::from_secs(from.connection_max_age);
    if connection_max_age.is_zero() || connection_max_age > MAX_AGE_LIMIT {
        let problem = format!(
            "is {}, not 1 to {} seconds",
            from.connection_max_age,
            MAX_AGE_LIMIT.as_secs()
        );
        return Err(Malformed::new("connection_max_age", problem));
    }
    if Identity::new(&from.trust_domain, "namespace", "account").is_err() {
        let problem = format!("{:?} is not a trust domain", from.trust_domain);
        return Err(Malformed::new("trust_domain", problem));
    }
    Ok(Settings {
        outbound,
        connection_max_age,
        trust_domain: from.trust_domain.clone(),
        authority: from.authority.clone().map(|authority| InForce {
            key_identifier: authority.key_identifier.to_vec(),
            roots: authority.roots,
        }),
    })
}
