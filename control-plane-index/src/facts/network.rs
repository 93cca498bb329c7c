//! What of a NetworkPolicy the index looks at: which pods it selects, and what it says comes into them. One that cannot
//! be understood lets nothing in, and says why: it never lets in what it may not have meant.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Labels, Selector, selector_selects};

#[cfg(test)]
mod tests;

/// Of a network policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPolicy {
    /// Which pods of its namespace.
    pub selector: LabelSelector,
    /// What comes in, any of it; none where it is not about that.
    pub ingress: Option<Vec<Rule>>,
    /// Why it is not understood; nothing comes in then.
    pub fault: Option<String>,
}

/// What may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// From whom; nobody is named: from everybody.
    pub peers: Vec<Peer>,
    /// Where to; none is named: to every port.
    pub ports: Vec<Ports>,
}

/// Whom a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods.
    Pods(Group),
    /// Addresses: those in the first, but for the others.
    Addresses(IpNet, Vec<IpNet>),
}

/// Pods that a pair of selectors selects. The same pair is the same group, whichever policy names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// Where they are.
    pub place: Place,
    /// Which of them.
    pub pods: Selector,
}

/// Namespaces of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Place {
    /// One: the policy's own.
    Namespace(String),
    /// Those with such labels.
    Namespaces(Selector),
}

/// TCP ports that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// By number.
    Numbers(RangeInclusive<u16>),
    /// By a container's name for it.
    Named(String),
}

impl NetworkPolicy {
    /// Of an object of a namespace, by its `spec`.
    #[must_use]
    pub fn read(namespace: &str, spec: &Value) -> Self {
        let read = networking::NetworkPolicySpec::deserialize(spec).map_err(|error| error.to_string());
        let understood = read.and_then(|spec| {
            let selector = spec.pod_selector.clone().unwrap_or_default();
            Selector::of(&selector).map_err(|fault| format!("podSelector: {fault}"))?;
            Ok((selector, ingress(namespace, &spec)?))
        });
        match understood {
            Ok((selector, ingress)) => Self {
                selector,
                ingress,
                fault: None,
            },
            Err(fault) => Self {
                // Where not even that can be read, every pod of the namespace is meant.
                selector: LabelSelector::deserialize(&spec["podSelector"]).unwrap_or_default(),
                ingress: Some(Vec::new()),
                fault: Some(fault),
            },
        }
    }

    /// Whether it selects a pod of its namespace.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        selector_selects(&self.selector, labels)
    }

    /// The groups that it names.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        let peers = self.ingress.iter().flatten().flat_map(|rule| &rule.peers);
        peers.filter_map(|peer| match peer {
            Peer::Pods(group) => Some(group),
            Peer::Addresses(..) => None,
        })
    }
}

impl Group {
    /// Whether a pod is of it.
    #[must_use]
    pub fn has(&self, namespace: &str, of_namespace: &Labels, of_pod: &Labels) -> bool {
        let there = match &self.place {
            Place::Namespace(name) => name == namespace,
            Place::Namespaces(selector) => selector.selects(of_namespace),
        };
        there && self.pods.selects(of_pod)
    }

    /// Its name: whatever is not the same group has another.
    #[must_use]
    pub fn name(&self) -> String {
        serde_json::json!([self.place, self.pods]).to_string()
    }
}

/// Without types every policy is about what comes in.
fn ingress(namespace: &str, spec: &networking::NetworkPolicySpec) -> Result<Option<Vec<Rule>>, String> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if let Some(unknown) = types
        .iter()
        .find(|one| !matches!(one.as_str(), "Ingress" | "Egress"))
    {
        return Err(format!("policyTypes: {unknown:?} is no type"));
    }
    if !types.is_empty() && !types.iter().any(|one| one == "Ingress") {
        return Ok(None);
    }
    let rules = spec.ingress.iter().flatten().enumerate();
    let rules = rules
        .map(|(index, from)| rule(namespace, from).map_err(|fault| format!("ingress[{index}]: {fault}")));
    let rules: Vec<Option<Rule>> = rules.collect::<Result<_, _>>()?;
    Ok(Some(rules.into_iter().flatten().collect()))
}

/// None where it is about other protocols than TCP alone.
fn rule(namespace: &str, from: &networking::NetworkPolicyIngressRule) -> Result<Option<Rule>, String> {
    let peers = from.from.iter().flatten().map(|one| peer(namespace, one));
    let peers = peers.collect::<Result<_, _>>()?;
    let listed = from.ports.as_deref().unwrap_or_default();
    let of_tcp: Vec<Ports> = listed
        .iter()
        .map(ports)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect();
    let none = !listed.is_empty() && of_tcp.is_empty();
    Ok((!none).then_some(Rule { peers, ports: of_tcp }))
}

fn peer(namespace: &str, from: &networking::NetworkPolicyPeer) -> Result<Peer, String> {
    let selector = |from: &LabelSelector| Selector::of(from);
    match (&from.ip_block, &from.namespace_selector, &from.pod_selector) {
        (Some(block), None, None) => {
            let net = |text: &String| text.parse().map_err(|error| format!("{text:?}: {error}"));
            let except = block.except.iter().flatten().map(net);
            Ok(Peer::Addresses(
                net(&block.cidr)?,
                except.collect::<Result<_, _>>()?,
            ))
        }
        (None, None, None) => Err("a peer that names nobody".into()),
        (None, namespaces, pods) => Ok(Peer::Pods(Group {
            place: match namespaces {
                Some(namespaces) => Place::Namespaces(selector(namespaces)?),
                None => Place::Namespace(namespace.to_owned()),
            },
            pods: pods.as_ref().map(selector).transpose()?.unwrap_or_default(),
        })),
        (Some(_), ..) => Err("a peer with an ipBlock and selectors".into()),
    }
}

/// None of another protocol than TCP.
fn ports(from: &networking::NetworkPolicyPort) -> Result<Option<Ports>, String> {
    match from.protocol.as_deref() {
        None | Some("TCP") => {}
        Some("UDP" | "SCTP") => return Ok(None),
        Some(other) => return Err(format!("{other:?} is no protocol")),
    }
    let number = |number: i32| match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{number} is not a port (1 to 65535)")),
    };
    let ports = match (&from.port, from.end_port) {
        (None, None) => Ports::Numbers(1..=u16::MAX),
        (Some(IntOrString::Int(first)), last) => {
            let (first, last) = (number(*first)?, number(last.unwrap_or(*first))?);
            if first > last {
                return Err(format!("a range from port {first} to {last}"));
            }
            Ports::Numbers(first..=last)
        }
        (Some(IntOrString::String(name)), None) => Ports::Named(name.clone()),
        (None | Some(IntOrString::String(_)), Some(_)) => {
            return Err("an endPort without a number to begin from".into());
        }
    };
    Ok(Some(ports))
}
