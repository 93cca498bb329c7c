//! NetworkPolicies as their rules: whom one lets in or out, and at which TCP ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use trefoil_api::names::port::HBONE;

use super::facts::Endpoint;

/// Labels of namespaces, by their names.
pub(super) type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// A policy.
#[derive(Debug)]
pub(super) struct Policy {
    /// NAMESPACE/NAME.
    pub(super) full_name: String,
    namespace: String,
    pods: Selection,
    /// None where it says nothing about who comes in.
    pub(super) ingress: Option<Vec<Rule>>,
    /// None where it says nothing about what goes out.
    pub(super) egress: Option<Vec<Rule>>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// None: all ports.
    ports: Option<Vec<Ports>>,
    /// Nobody is named: everybody.
    peers: Vec<Peer>,
}

#[derive(Debug)]
enum Ports {
    All,
    Range(u16, u16),
    Named(String),
}

#[derive(Debug)]
enum Peer {
    Pods {
        /// None: the policy's own namespace.
        namespaces: Option<Selection>,
        pods: Selection,
    },
    Addresses {
        within: Option<IpNet>,
        except: Vec<IpNet>,
    },
}

/// A selector; one that cannot be understood selects nothing, as in the API server that would refuse it.
#[derive(Debug)]
struct Selection(Option<Selector>);

impl Selection {
    fn of(selector: Option<LabelSelector>) -> Self {
        Self(Selector::try_from(selector.unwrap_or_default()).ok())
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

impl Policy {
    /// Of an object.
    pub(super) fn of(object: NetworkPolicy) -> Option<Self> {
        let namespace = object.namespace()?;
        let full_name = format!("{namespace}/{}", object.name_any());
        let spec = object.spec?;
        let types = spec.policy_types.unwrap_or_default();
        let says = |direction: &str| types.iter().any(|one| one == direction);
        // Without types every policy is about ingress, and about egress if it has such rules.
        let ingress = types.is_empty() || says("Ingress");
        let egress = says("Egress") || (types.is_empty() && spec.egress.is_some());
        let came_in = spec.ingress.into_iter().flatten();
        let came_in = came_in.map(|rule| Rule::of(rule.ports, rule.from)).collect();
        let goes_out = spec.egress.into_iter().flatten();
        let goes_out = goes_out.map(|rule| Rule::of(rule.ports, rule.to)).collect();
        Some(Self {
            full_name,
            namespace,
            pods: Selection::of(spec.pod_selector),
            ingress: ingress.then_some(came_in),
            egress: egress.then_some(goes_out),
        })
    }

    /// Whether it is about this pod.
    pub(super) fn selects(&self, pod: &Endpoint) -> bool {
        pod.namespace == self.namespace && self.pods.selects(&pod.labels)
    }
}

impl Rule {
    fn of(ports: Option<Vec<NetworkPolicyPort>>, peers: Option<Vec<NetworkPolicyPeer>>) -> Self {
        let ports = ports.filter(|ports| !ports.is_empty());
        Self {
            ports: ports.map(|ports| ports.into_iter().filter_map(Ports::of).collect()),
            peers: peers.into_iter().flatten().map(Peer::of).collect(),
        }
    }

    /// Whether it is about connections with this pod, as a rule of a policy in `namespace`.
    pub(super) fn concerns(&self, pod: &Endpoint, namespace: &str, namespaces: &Namespaces) -> bool {
        let is = |peer: &Peer| peer.is(pod, namespace, namespaces);
        self.peers.is_empty() || self.peers.iter().any(is)
    }

    /// Whether it lets through to this TCP port of a server.
    pub(super) fn includes(&self, number: u16, server: &Endpoint) -> bool {
        self.any_port(|port| match port {
            Ports::All => true,
            Ports::Range(first, last) => (*first..=*last).contains(&number),
            Ports::Named(name) => server.ports.get(name) == Some(&number),
        })
    }

    /// Whether it lets through to a TCP port of an application.
    pub(super) fn application(&self) -> bool {
        self.any_port(|port| !matches!(port, Ports::Range(HBONE, HBONE)))
    }

    fn any_port(&self, is: impl FnMut(&Ports) -> bool) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.iter().any(is))
    }
}

impl Ports {
    /// None of another protocol.
    fn of(port: NetworkPolicyPort) -> Option<Self> {
        if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
            return None;
        }
        let number = |number: i32| u16::try_from(number).ok();
        match port.port {
            None => Some(Self::All),
            Some(IntOrString::Int(first)) => Some(Self::Range(
                number(first)?,
                number(port.end_port.unwrap_or(first))?,
            )),
            Some(IntOrString::String(name)) => Some(Self::Named(name)),
        }
    }
}

impl Peer {
    fn of(peer: NetworkPolicyPeer) -> Self {
        match peer.ip_block {
            Some(IPBlock { cidr, except }) => Self::Addresses {
                within: cidr.parse().ok(),
                except: except
                    .iter()
                    .flatten()
                    .filter_map(|net| net.parse().ok())
                    .collect(),
            },
            None => Self::Pods {
                namespaces: peer
                    .namespace_selector
                    .map(|selector| Selection::of(Some(selector))),
                pods: Selection::of(peer.pod_selector),
            },
        }
    }

    fn is(&self, pod: &Endpoint, namespace: &str, all: &Namespaces) -> bool {
        match self {
            Self::Pods { namespaces, pods } => {
                let there = match namespaces {
                    None => pod.namespace == namespace,
                    Some(selection) => all
                        .get(&pod.namespace)
                        .is_some_and(|labels| selection.selects(labels)),
                };
                there && pods.selects(&pod.labels)
            }
            Self::Addresses { within, except } => {
                let inside = |address: &IpAddr| {
                    within.is_some_and(|net| net.contains(address))
                        && !except.iter().any(|net| net.contains(address))
                };
                pod.addresses.iter().any(inside)
            }
        }
    }
}
