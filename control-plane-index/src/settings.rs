//! The mesh-wide settings as a resource: what of the configuration data planes act on.

use prost::Message;
use trefoil_api::mesh_config::Outbound;
use trefoil_api::names::MESH_SETTINGS;
use trefoil_api::proto::trefoil::v1::{self as message, MeshSettings};

use super::Index;
use super::snapshot::{Encoded, ResourceKind};

#[cfg(test)]
mod tests;

impl Index {
    /// Publishes the settings in force; those that are served already are no change.
    pub(super) fn compute_settings(&mut self) {
        if !std::mem::take(&mut self.dirty.settings) {
            return;
        }
        let outbound = match self.config.outbound {
            Outbound::AllowAny => message::Outbound::AllowAny,
            Outbound::RegistryOnly => message::Outbound::RegistryOnly,
        };
        let settings = MeshSettings {
            outbound: outbound.into(),
            connection_max_age: self.config.connection_max_age.as_secs(),
            trust_domain: self.trust_domain().into(),
            authority: self.authority.clone(),
        };
        let kind = ResourceKind::MeshSettings;
        let resource = Encoded::new(
            kind,
            MESH_SETTINGS,
            Vec::new(),
            Vec::new(),
            settings.encode_to_vec(),
        );
        self.snapshot
            .set(&mut self.changes, kind, MESH_SETTINGS, Some(resource));
    }
}
