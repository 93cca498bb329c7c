//! What is to be done so that waypoints have the pods that they ask for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use kube::api::DynamicObject;
use trefoil_api::names::{WAYPOINT_CLASS, annotation};

use crate::mesh::Node;

/// Namespace and name of a Gateway.
pub(super) type Name = (String, String);
/// How many pods each waypoint is to have.
pub(super) type Wanted = BTreeMap<Name, u32>;
/// The pods that there are, by number, and whether they are leaving.
pub(super) type Have = BTreeMap<Name, BTreeMap<u32, bool>>;

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Pods to be made.
    pub(super) make: Vec<(Name, u32)>,
    /// Pods that are to leave.
    pub(super) leave: Vec<(Name, u32)>,
    /// Waypoints of which the last pod has gone.
    pub(super) remove: Vec<Name>,
}

/// The waypoints that there are to be, and how many pods of each.
pub(super) fn wanted<'a>(gateways: impl Iterator<Item = &'a DynamicObject>) -> Wanted {
    gateways
        .filter(|gateway| gateway.data["spec"]["gatewayClassName"] == WAYPOINT_CLASS)
        .filter(|gateway| gateway.metadata.deletion_timestamp.is_none())
        .filter_map(|gateway| {
            let name = (gateway.namespace()?, gateway.name_any());
            Some((name, replicas(gateway)))
        })
        .collect()
}

/// As its annotation says, else one.
fn replicas(gateway: &DynamicObject) -> u32 {
    let said = gateway.annotations().get(annotation::REPLICAS);
    said.and_then(|said| said.parse().ok()).unwrap_or(1)
}

impl Plan {
    /// From what there is to what is wanted. A pod that is leaving keeps its number until it has gone.
    pub(super) fn between(wanted: &Wanted, have: &Have) -> Self {
        let mut plan = Self::default();
        let none = BTreeMap::new();
        for (name, replicas) in wanted {
            let pods = have.get(name).unwrap_or(&none);
            let missing = (1..=*replicas).filter(|number| !pods.contains_key(number));
            plan.make.extend(missing.map(|number| (name.clone(), number)));
        }
        for (name, pods) in have {
            let replicas = wanted.get(name).copied().unwrap_or(0);
            let excess = pods
                .iter()
                .filter(|(number, leaving)| **number > replicas && !**leaving);
            plan.leave
                .extend(excess.map(|(number, _)| (name.clone(), *number)));
            if pods.is_empty() && !wanted.contains_key(name) {
                plan.remove.push(name.clone());
            }
        }
        plan
    }
}

/// The node with the fewest of these.
pub(super) fn spread(nodes: &[Node], taken: &[u8]) -> Option<Node> {
    let on = |node: &Node| taken.iter().filter(|number| **number == node.0).count();
    let order: BTreeSet<(usize, u8)> = nodes.iter().map(|node| (on(node), node.0)).collect();
    order.first().map(|(_, number)| Node(*number))
}
