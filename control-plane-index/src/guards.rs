//! Which waypoint traffic to a workload must have passed. At most one; where its services ask for different
//! ones, nobody passes, and it is said why.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use trefoil_api::names::extension;
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1::Guard;
use trefoil_api::proto::type_url;

use super::facts::Pod;
use super::services::resource_name;
use super::waypoints::{Use, gateway_address, identity};
use super::{Index, ObjectKey};

/// What waypoints have to do with a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Guarding {
    /// It is a waypoint's own pod.
    pub(super) of_waypoint: bool,
    /// Where those dial who dial the workload itself.
    pub(super) dialled: Option<message::GatewayAddress>,
    /// Its guard.
    pub(super) guard: Option<Guard>,
    /// The waypoints that it or its services name, whether or not they can be used.
    pub(super) named: BTreeSet<ObjectKey>,
    /// All that it or its services choose, whatever comes of it.
    pub(super) chosen: BTreeSet<ObjectKey>,
    /// Its services that ask for a waypoint, where they ask for different ones.
    pub(super) contending: BTreeSet<ObjectKey>,
    /// What is to be said about it.
    pub(super) fault: Option<String>,
}

impl Guarding {
    /// Whether a waypoint inspects its traffic.
    pub(super) fn is_inspected(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.closed.is_empty())
    }

    /// As the workload says it.
    pub(super) fn extension(&self) -> Option<message::Extension> {
        self.guard.as_ref().map(|guard| message::Extension {
            name: extension::GUARD.into(),
            config: Some(prost_types::Any {
                type_url: type_url::GUARD.into(),
                value: guard.encode_to_vec(),
            }),
        })
    }
}

impl Index {
    /// What waypoints have to do with a pod that is an endpoint of these services.
    pub(super) fn guarding(&self, key: &ObjectKey, pod: &Pod, services: &BTreeSet<ObjectKey>) -> Guarding {
        if self.is_of_waypoint(key, pod) {
            return Guarding {
                of_waypoint: true,
                ..Guarding::default()
            };
        }
        let own = self.workload_use(key, pod);
        let mut guarding = Guarding {
            fault: own.fault(),
            chosen: self.chosen(key, &pod.labels).into_iter().collect(),
            ..Guarding::default()
        };
        let of_services = services.iter().filter_map(|service| {
            let labels = &self.services.get(service)?.labels;
            self.chosen(service, labels)
        });
        guarding.chosen.extend(of_services);
        // By waypoint: its own service, and who asks for it.
        let mut asked: BTreeMap<ObjectKey, (ObjectKey, Vec<String>)> = BTreeMap::new();
        let mut asking = BTreeSet::new();
        let of_services = services.iter().filter_map(|service| {
            let used = self.service_use(service, self.services.get(service)?);
            if matches!(used, Use::Waypoint(..)) {
                asking.insert(service.clone());
            }
            Some((format!("service {service}"), used))
        });
        let itself = (format!("pod {key}"), own);
        for (who, one) in of_services.chain([itself.clone()]) {
            guarding.named.extend(one.named().cloned());
            if let Use::Waypoint(waypoint, service) = one {
                let entry = asked.entry(waypoint).or_insert_with(|| (service, Vec::new()));
                entry.1.push(who);
            }
        }
        if let (_, Use::Waypoint(_, service)) = &itself {
            guarding.dialled = Some(gateway_address(service));
        }
        if asked.len() > 1 {
            let parts = asked
                .iter()
                .map(|(waypoint, (_, who))| format!("{waypoint} ({})", who.join(", ")));
            let parts: Vec<String> = parts.collect();
            let closed = format!("guarded by different waypoints: {}", parts.join(" and "));
            guarding.fault = Some(format!("nobody may reach it: {closed}"));
            guarding.contending = asking;
            guarding.guard = Some(Guard {
                closed,
                ..Guard::default()
            });
        } else if let Some((waypoint, (service, _))) = asked.pop_first() {
            guarding.guard = Some(self.guard(&waypoint, &service));
        }
        guarding
    }

    fn guard(&self, waypoint: &ObjectKey, service: &ObjectKey) -> Guard {
        match identity(self.trust_domain(), waypoint) {
            Some(identity) => Guard {
                identity: identity.to_string(),
                service: resource_name(service),
                closed: String::new(),
            },
            None => Guard {
                closed: format!("waypoint {waypoint} has a name that is not an identity's"),
                ..Guard::default()
            },
        }
    }
}
