//! NetworkPolicies and tunnels: policies of users name application ports, and what comes through the mesh comes
//! at 15008, where the pod's plane lets in what the policies let in at the application's port. Found are policies that
//! keep tunnels of those away whom they let in, and such as let tunnels in from clients whom they let in at no port of
//! an application. Pure: objects in, findings out.

mod facts;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use facts::Endpoint;
pub(super) use facts::Facts;
use facts::Plane;
use rules::{Policy, Rule};
use trefoil_api::names::port;

/// How many pods are named at most.
const NAMED: usize = 3;

/// What is wrong with one policy, and the pods at both ends of what is.
#[derive(Default)]
struct Ends<'a> {
    selected: BTreeSet<&'a str>,
    others: BTreeSet<&'a str>,
}

/// What a policy does to tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Lets clients in at application ports, and not their tunnels.
    BlocksIn,
    /// Lets pods out to application ports, and not their tunnels.
    BlocksOut,
    /// Lets tunnels in of clients who may reach no application port: nothing comes of them.
    Moot,
    /// Keeps a plane that runs in the pod from the control plane.
    NoControlPlane,
}

/// Pods for which the same rules hold.
struct Group<'a> {
    policies: Vec<&'a Policy>,
    pods: Vec<&'a Endpoint>,
}

type Found<'a> = BTreeMap<(&'a str, Fault), Ends<'a>>;

/// What is found, each with its remedy. Where no network plugin enforces policies none of it matters, which
/// cannot be seen from here: the findings say so.
pub(super) fn findings(facts: &Facts) -> Vec<(String, String)> {
    let mut found = Found::new();
    for group in groups(facts) {
        ingress(facts, &group, &mut found);
        egress(facts, &group, &mut found);
    }
    let told = found.into_iter();
    told.map(|((policy, fault), ends)| fault.told(policy, &ends))
        .collect()
}

/// What is the same of pods for which the same rules hold.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Alike<'a> {
    namespace: &'a str,
    policies: Vec<usize>,
    plane: Option<Plane>,
    ports: &'a BTreeMap<String, u16>,
}

/// Those in the mesh that a policy selects. Replicas are looked at once: there may be thousands.
fn groups(facts: &Facts) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<Alike<'_>, Vec<&Endpoint>> = BTreeMap::new();
    for pod in facts.endpoints.iter().filter(|pod| pod.plane.is_some()) {
        let policies = facts.policies.iter().enumerate();
        let selecting = policies.filter(|(_, policy)| policy.selects(pod));
        let alike = Alike {
            namespace: &pod.namespace,
            policies: selecting.map(|(index, _)| index).collect(),
            plane: pod.plane,
            ports: &pod.ports,
        };
        groups.entry(alike).or_default().push(pod);
    }
    let selected = groups.into_iter().filter(|(alike, _)| !alike.policies.is_empty());
    selected
        .map(|(alike, pods)| Group {
            policies: alike
                .policies
                .into_iter()
                .map(|index| &facts.policies[index])
                .collect(),
            pods,
        })
        .collect()
}

impl<'a> Group<'a> {
    /// The rules of one direction, each with its policy; none where no policy is about it.
    fn rules(&self, of: impl Fn(&'a Policy) -> Option<&'a Vec<Rule>>) -> Option<Vec<(&'a str, &'a Rule)>> {
        let about = self
            .policies
            .iter()
            .filter_map(|policy| Some((*policy, of(policy)?)));
        let about: Vec<_> = about.collect();
        let rules = about
            .iter()
            .flat_map(|(policy, rules)| rules.iter().map(|rule| (policy.full_name.as_str(), rule)));
        (!about.is_empty()).then(|| rules.collect())
    }

    /// Others in the mesh: a pod's connections to itself go through no tunnel.
    fn others(&self, facts: &'a Facts) -> impl Iterator<Item = &'a Endpoint> {
        let alone = (self.pods.len() == 1).then(|| self.pods[0].full_name.as_str());
        let meshed = facts.endpoints.iter().filter(|pod| pod.plane.is_some());
        meshed.filter(move |pod| alone != Some(pod.full_name.as_str()))
    }

    fn note(&self, found: &mut Found<'a>, policy: &'a str, fault: Fault, other: &'a Endpoint) {
        let ends = found.entry((policy, fault)).or_default();
        ends.selected
            .extend(self.pods.iter().map(|pod| pod.full_name.as_str()));
        ends.others.insert(&other.full_name);
    }
}

/// Whoever is let in is let in by a tunnel, and whoever is let in by a tunnel is let in.
fn ingress<'a>(facts: &'a Facts, group: &Group<'a>, found: &mut Found<'a>) {
    let Some(rules) = group.rules(|policy| policy.ingress.as_ref()) else {
        return;
    };
    let server = group.pods[0];
    for client in group.others(facts) {
        let admitting = || {
            let all = rules.iter();
            all.filter(|(_, rule)| rule.concerns(client, &server.namespace, &facts.namespaces))
        };
        let application = admitting().find(|(_, rule)| rule.application());
        let tunnel = admitting().find(|(_, rule)| rule.includes(port::HBONE, server));
        match (application, tunnel) {
            (Some((policy, _)), None) => group.note(found, policy, Fault::BlocksIn, client),
            (None, Some((policy, _))) => group.note(found, policy, Fault::Moot, client),
            _ => {}
        }
    }
}

/// What is let out is let out by a tunnel, and a proxy that runs in the pod reaches the control plane.
fn egress<'a>(facts: &'a Facts, group: &Group<'a>, found: &mut Found<'a>) {
    let Some(rules) = group.rules(|policy| policy.egress.as_ref()) else {
        return;
    };
    let client = group.pods[0];
    let reaching = |server: &Endpoint| -> Vec<_> {
        let all = rules.iter();
        all.filter(|(_, rule)| rule.concerns(server, &client.namespace, &facts.namespaces))
            .collect()
    };
    for server in group.others(facts) {
        let reaching = reaching(server);
        let application = reaching.iter().find(|(_, rule)| rule.application());
        let tunnel = reaching
            .iter()
            .any(|(_, rule)| rule.includes(port::HBONE, server));
        if let (Some((policy, _)), false) = (application, tunnel) {
            group.note(found, policy, Fault::BlocksOut, server);
        }
    }
    // The node's proxy asks from a pod of its own.
    if client.plane == Some(Plane::Node) {
        return;
    }
    let about = group.policies.iter().find(|policy| policy.egress.is_some());
    for control_plane in facts.endpoints.iter().filter(|one| one.control_plane) {
        let reached = reaching(control_plane)
            .iter()
            .any(|(_, rule)| rule.includes(port::CONTROL_PLANE, control_plane));
        if let (false, Some(policy)) = (reached, about) {
            group.note(found, &policy.full_name, Fault::NoControlPlane, control_plane);
        }
    }
}

impl Fault {
    fn told(self, policy: &str, ends: &Ends) -> (String, String) {
        let (pods, others) = (named(&ends.selected), named(&ends.others));
        let enforced = "where the network plugin enforces policies";
        let same = "add port 15008 (TCP) to the rule that names the application's ports, with the same peers";
        let (finding, remedy) = match self {
            Self::BlocksIn => (
                format!("lets {others} reach {pods} at ports of the application and not at 15008, where tunnels arrive: {enforced}, they do not reach it through the mesh"),
                format!("{same}; the mesh lets in what the rule says of the application's ports, and no more"),
            ),
            Self::BlocksOut => (
                format!("lets {pods} reach {others} at ports of the application and not at 15008, where tunnels arrive: {enforced}, nothing reaches it through the mesh"),
                same.to_owned(),
            ),
            Self::Moot => (
                format!("lets {others} reach {pods} at 15008 and at no port of the application: the mesh takes their tunnels, and lets in nothing of what they carry"),
                "name the application's ports beside 15008 for those who are to reach it, else leave them out of the rule for 15008".to_owned(),
            ),
            Self::NoControlPlane => (
                format!("does not let {pods} reach the control plane ({others}) at 15012: {enforced}, the proxy that runs in the pod gets neither certificates nor policies"),
                "add an egress rule to namespace trefoil-system, pods app=trefoil-control-plane, port 15012 (TCP)".to_owned(),
            ),
        };
        (format!("networkpolicy {policy} {finding}"), remedy)
    }
}

/// The first few of them.
fn named(pods: &BTreeSet<&str>) -> String {
    let first: Vec<&str> = pods.iter().take(NAMED).copied().collect();
    match pods.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
