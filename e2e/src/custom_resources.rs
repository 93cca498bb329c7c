//! The mesh's own kinds as CustomResourceDefinitions, for `kubectl apply`: generated from the types, never
//! written by hand.

use kube::CustomResourceExt;
use trefoil_api::crd::{AuthorizationPolicy, PeerAuthentication};

/// All definitions, one YAML document each.
pub fn definitions() -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in [AuthorizationPolicy::crd(), PeerAuthentication::crd()] {
        text.push_str("---\n");
        text.push_str(&serde_json::to_string_pretty(&definition)?);
        text.push('\n');
    }
    Ok(text)
}
