//! What is known, for people and for `trefoilctl why`, which asks each plane what it holds.

use serde_json::{Value, json};
use trefoil_api::policy::{Action, Policy, Scope};

use trefoil_dataplane_state::state::{Guard, Service, Snapshot, Workload};

/// Workloads by uid and services by name.
#[must_use]
pub fn workloads(known: &Snapshot) -> Value {
    let mut workloads: Vec<_> = known.workloads().collect();
    workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
    let mut services: Vec<_> = known.services().collect();
    services.sort_by_key(|service| service.key());
    json!({
        "workloads": workloads.iter().map(|one| workload(one)).collect::<Vec<_>>(),
        "services": services.iter().map(|one| service(known, one)).collect::<Vec<_>>(),
    })
}

fn workload(workload: &Workload) -> Value {
    let placement = workload.placement.as_ref().map(|placement| {
        json!({
            "plane": placement.plane.as_str_name(),
            "isolation": placement.isolation.as_str_name(),
            "networkPolicySelected": placement.network_policy_selected,
            "podUid": placement.pod_uid,
        })
    });
    json!({
        "uid": workload.uid,
        "name": workload.name,
        "namespace": workload.namespace,
        "addresses": workload.addresses,
        "identity": workload.identity.to_string(),
        "tunnel": workload.tunnel,
        "node": workload.node,
        "locality": workload.locality,
        "services": workload.services,
        "policies": workload.policies,
        "placement": placement,
        "guard": workload.guard.as_ref().map(|guard| match guard {
            Guard::Waypoint { identity, .. } => identity.to_string(),
            Guard::Closed(reason) => reason.clone(),
        }),
        "networkGroups": workload.groups,
        "networkPolicies": workload.network_policies.iter().map(|one| &one.name).collect::<Vec<_>>(),
        "waypoint": workload.waypoint,
        "healthy": workload.healthy,
    })
}

fn service(known: &Snapshot, service: &Service) -> Value {
    let endpoints: Vec<&str> = known
        .endpoints(&service.key())
        .map(|one| one.uid.as_str())
        .collect();
    json!({
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "addresses": service.addresses,
        "ports": service.ports,
        "loadBalancing": service.load_balancing,
        "endpoints": endpoints,
    })
}

/// Policies by name; those that were refused say so.
#[must_use]
pub fn policies(known: &Snapshot) -> Value {
    let all: Vec<Value> = known
        .policies()
        .iter()
        .map(|(name, policy)| match policy {
            Some(policy) => one_policy(name, policy),
            None => json!({ "name": name, "state": "refused: closes what it is for" }),
        })
        .collect();
    json!({ "policies": all })
}

fn one_policy(name: &str, policy: &Policy) -> Value {
    json!({
        "name": name,
        "state": "in force",
        "namespace": policy.namespace,
        "scope": match policy.scope {
            Scope::Mesh => "mesh",
            Scope::Namespace => "namespace",
            Scope::Workload => "workload",
        },
        "action": match policy.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        },
        "dryRun": policy.dry_run,
        "rules": policy.described(),
    })
}

/// The mesh-wide settings, where the control plane says them, and what follows where it does not.
#[must_use]
pub fn settings(known: &Snapshot) -> Value {
    json!({ "settings": known.settings(), "registryOnly": known.registry_only() })
}
