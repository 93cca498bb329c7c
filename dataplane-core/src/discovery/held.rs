//! Every accepted resource, raw: what is named to the control plane on reconnecting, remembered on disk, and
//! handed to new workers. Clones are cheap.

use std::collections::{HashMap, HashSet};

use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};

use super::TYPES;

/// Every accepted resource, by type and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    types: imbl::OrdMap<String, imbl::OrdMap<String, Resource>>,
}

impl Held {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a response whose resources were all accepted.
    pub fn apply(&mut self, response: &DeltaDiscoveryResponse) {
        let resources = self.types.entry(response.type_url.clone()).or_default();
        for name in &response.removed_resources {
            resources.remove(name);
        }
        for resource in &response.resources {
            resources.insert(resource.name.clone(), resource.clone());
        }
    }

    /// Name to version of what is held of a type.
    #[must_use]
    pub fn versions(&self, type_url: &str) -> HashMap<String, String> {
        let resources = self.types.get(type_url).into_iter().flatten();
        resources
            .map(|(name, resource)| (name.clone(), resource.version.clone()))
            .collect()
    }

    /// Everything held, as one response a type, policies first. Types that were never answered are left out.
    #[must_use]
    pub fn responses(&self) -> Vec<DeltaDiscoveryResponse> {
        TYPES
            .iter()
            .filter_map(|type_url| {
                let resources = self.types.get(*type_url)?;
                Some(DeltaDiscoveryResponse {
                    type_url: (*type_url).into(),
                    resources: resources.values().cloned().collect(),
                    ..DeltaDiscoveryResponse::default()
                })
            })
            .collect()
    }

    /// How many resources are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.values().map(imbl::OrdMap::len).sum()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A response without the resources that were refused.
pub(super) fn accepted(
    mut response: DeltaDiscoveryResponse,
    refused: &HashSet<&str>,
) -> DeltaDiscoveryResponse {
    response
        .resources
        .retain(|resource| !refused.contains(resource.name.as_str()));
    response
}
