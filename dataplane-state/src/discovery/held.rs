//! Every resource that was received, raw: what is named to the control plane on reconnecting, remembered on
//! disk, and handed to new workers. Clones are cheap.
//!
//! Of a resource that was refused, the last good version is held. Where there is none the refused one is, as
//! of no version: whoever is given it refuses it again, and so closes what it would have guarded; and the
//! control plane, told of it, says when it is gone.

use std::collections::{HashMap, HashSet};

use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::type_url;

use crate::state::Refusal;

/// Every resource, by type and name.
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

    /// Takes a response. Of the `refused` ones only those are taken that have no last good version. Returns
    /// what was taken.
    pub fn apply(
        &mut self,
        mut response: DeltaDiscoveryResponse,
        refused: &[Refusal],
    ) -> DeltaDiscoveryResponse {
        let refused: HashSet<&str> = refused.iter().map(|refusal| refusal.name.as_str()).collect();
        let resources = self.types.entry(response.type_url.clone()).or_default();
        for name in &response.removed_resources {
            resources.remove(name);
        }
        response.resources.retain_mut(|resource| {
            if refused.contains(resource.name.as_str()) {
                let last_good = resources.get(&resource.name);
                if last_good.is_some_and(|held| !held.version.is_empty()) {
                    return false;
                }
                resource.version.clear();
            }
            resources.insert(resource.name.clone(), resource.clone());
            true
        });
        response
    }

    /// Name to version of what is held of a type; no version where it was refused.
    #[must_use]
    pub fn versions(&self, type_url: &str) -> HashMap<String, String> {
        let resources = self.types.get(type_url).into_iter().flatten();
        resources
            .map(|(name, resource)| (name.clone(), resource.version.clone()))
            .collect()
    }

    /// Everything held, as one response a type, workloads last: nothing may be decided before policies are
    /// known. Types that were never answered are left out.
    #[must_use]
    pub fn responses(&self) -> Vec<DeltaDiscoveryResponse> {
        let mut types: Vec<_> = self.types.iter().collect();
        types.sort_by_key(|(type_url, _)| *type_url == type_url::ADDRESS);
        let response =
            |(type_url, resources): (&String, &imbl::OrdMap<String, Resource>)| DeltaDiscoveryResponse {
                type_url: type_url.clone(),
                resources: resources.values().cloned().collect(),
                ..DeltaDiscoveryResponse::default()
            };
        types.into_iter().map(response).collect()
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
