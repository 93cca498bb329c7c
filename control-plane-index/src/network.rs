//! NetworkPolicies and workloads: which policies select a pod, and of which of their groups it is. Both are on the
//! workload itself, so that no client of ours holds a selected pod without what selects it.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use trefoil_api::names::extension;
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1::network_peer::Peer as Named;
use trefoil_api::proto::trefoil::v1::{
    AddressBlock, Network, NetworkPeer, NetworkPolicy as Selecting, NetworkRule, PortRange,
};
use trefoil_api::proto::type_url;

use super::apply::{in_namespace, put};
use super::facts::{Group, NetworkPolicy, Peer, Place, Pod, Ports, Rule, Selector};
use super::{Index, ObjectKey};

/// The groups that policies name, each with those policies.
pub(super) type Groups = BTreeMap<Group, BTreeSet<ObjectKey>>;

impl Index {
    pub(super) fn apply_network_policy(&mut self, key: ObjectKey, facts: Option<NetworkPolicy>) {
        let old = self.network_policies.get(&key);
        if old == facts.as_ref() {
            return;
        }
        let named = |policy: Option<&NetworkPolicy>| -> BTreeSet<Group> {
            policy
                .into_iter()
                .flat_map(NetworkPolicy::groups)
                .cloned()
                .collect()
        };
        let (before, after) = (named(old), named(facts.as_ref()));
        for group in before.symmetric_difference(&after) {
            let known = self.groups.contains_key(group);
            put(&mut self.groups, group.clone(), &key, after.contains(group));
            if known != self.groups.contains_key(group) {
                self.mark_group(group);
            }
        }
        let fault = facts.as_ref().and_then(|facts| facts.fault.as_deref());
        let fault = fault.map(|fault| format!("lets nothing in, since it is not understood: {fault}"));
        self.news |= self.findings.set("networkpolicy", &key, fault);
        self.mark_namespace(&key.namespace);
        match facts {
            Some(facts) => self.network_policies.insert(key, facts),
            None => self.network_policies.remove(&key),
        };
    }

    /// The pods of a group.
    fn mark_group(&mut self, group: &Group) {
        let of_group = |(key, pod): &(&ObjectKey, &Pod)| {
            let labels = self.labels_of(&key.namespace);
            group.has(&key.namespace, labels, &pod.labels)
        };
        let keys: Vec<ObjectKey> = match &group.place {
            Place::Namespace(name) => {
                let pods = in_namespace(&self.pods, name).filter(of_group);
                pods.map(|(key, _)| key.clone()).collect()
            }
            Place::Namespaces(_) => {
                let pods = self.pods.iter().filter(of_group);
                pods.map(|(key, _)| key.clone()).collect()
            }
        };
        self.dirty.pods.extend(keys);
    }

    /// Names of the groups that a pod is of.
    fn groups_of(&self, key: &ObjectKey, pod: &Pod) -> BTreeSet<String> {
        let first = |place| Group {
            place,
            pods: Selector::default(),
        };
        let own = Place::Namespace(key.namespace.clone());
        let here = self.groups.range(first(own.clone())..);
        let here = here.take_while(|(group, _)| group.place == own);
        let anywhere = self.groups.range(first(Place::Namespaces(Selector::default()))..);
        let labels = self.labels_of(&key.namespace);
        here.chain(anywhere)
            .filter(|(group, _)| group.has(&key.namespace, labels, &pod.labels))
            .map(|(group, _)| group.name())
            .collect()
    }

    /// Whether any policy selects a pod, whichever way it is about.
    pub(super) fn is_network_selected(&self, key: &ObjectKey, pod: &Pod) -> bool {
        in_namespace(&self.network_policies, &key.namespace).any(|(_, policy)| policy.selects(&pod.labels))
    }

    /// What a workload says of it, if there is anything. The host's network is under no policy, and what comes from
    /// there is no pod's.
    pub(super) fn network(&self, key: &ObjectKey, pod: &Pod) -> Option<message::Extension> {
        if pod.host_network {
            return None;
        }
        let selecting = in_namespace(&self.network_policies, &key.namespace)
            .filter(|(_, policy)| policy.selects(&pod.labels));
        let policies = selecting.filter_map(|(policy, facts)| {
            let rules = facts.ingress.as_ref()?.iter();
            Some(Selecting {
                name: policy.to_string(),
                rules: rules.filter_map(|one| rule(one, pod)).collect(),
            })
        });
        let network = Network {
            groups: self.groups_of(key, pod).into_iter().collect(),
            policies: policies.collect(),
        };
        (network != Network::default()).then(|| message::Extension {
            name: extension::NETWORK.into(),
            config: Some(prost_types::Any {
                type_url: type_url::NETWORK.into(),
                value: network.encode_to_vec(),
            }),
        })
    }
}

/// A rule for a pod; none where it names ports, and the pod has none of them.
fn rule(from: &Rule, pod: &Pod) -> Option<NetworkRule> {
    let ports: Vec<PortRange> = from.ports.iter().flat_map(|one| ports(one, pod)).collect();
    let nowhere = ports.is_empty() && !from.ports.is_empty();
    (!nowhere).then(|| NetworkRule {
        peers: from.peers.iter().map(peer).collect(),
        ports,
    })
}

fn ports(from: &Ports, pod: &Pod) -> Vec<PortRange> {
    let range = |first: u16, last: u16| PortRange {
        first: first.into(),
        last: last.into(),
    };
    match from {
        Ports::Numbers(numbers) => vec![range(*numbers.start(), *numbers.end())],
        Ports::Named(wanted) => {
            let named = pod.ports.iter().filter(|(name, _)| name == wanted);
            named.map(|(_, port)| range(*port, *port)).collect()
        }
    }
}

fn peer(from: &Peer) -> NetworkPeer {
    let named = match from {
        Peer::Pods(group) => Named::Group(group.name()),
        Peer::Addresses(within, except) => Named::Block(AddressBlock {
            within: within.to_string(),
            except: except.iter().map(ToString::to_string).collect(),
        }),
    };
    NetworkPeer { peer: Some(named) }
}
