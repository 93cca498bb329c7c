//! What a pod's annotations except from redirection. What cannot be understood is refused with its annotation named,
//! never narrowed: by admission, and by the agent for a pod that admission has not seen.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::names::annotation;

#[cfg(test)]
mod tests;

/// What is not redirected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Ports of the pod that are reached without the mesh.
    pub inbound: BTreeSet<u16>,
    /// Ports that it dials without the mesh.
    pub outbound: BTreeSet<u16>,
    /// Addresses that it dials without the mesh.
    pub destinations: BTreeSet<IpNet>,
}

/// An annotation that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {value:?} is not {expected}")]
pub struct AnnotationError {
    /// Which.
    pub annotation: &'static str,
    /// What it says, or the entry of it that is wrong.
    pub value: String,
    /// What it may say.
    pub expected: &'static str,
}

impl Exclusions {
    /// Of a pod with these annotations.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Result<Self, AnnotationError> {
        let text = |name: &str| {
            let found = annotations.and_then(|annotations| annotations.get(name));
            found.map(String::as_str).unwrap_or_default()
        };
        let read_ports = |name| ports(name, text(name));
        Ok(Self {
            inbound: read_ports(annotation::EXCLUDE_INBOUND_PORTS)?,
            outbound: read_ports(annotation::EXCLUDE_OUTBOUND_PORTS)?,
            destinations: ranges(
                annotation::EXCLUDE_OUTBOUND_CIDRS,
                text(annotation::EXCLUDE_OUTBOUND_CIDRS),
            )?,
        })
    }
}

/// A comma-separated list of ports; empty is none.
fn ports(annotation: &'static str, text: &str) -> Result<BTreeSet<u16>, AnnotationError> {
    entries(text)
        .map(|entry| {
            entry
                .parse()
                .ok()
                .filter(|&port: &u16| port != 0)
                .ok_or_else(|| AnnotationError {
                    annotation,
                    value: entry.into(),
                    expected: "a port (1 to 65535)",
                })
        })
        .collect()
}

/// A comma-separated list of address ranges, or single addresses; empty is none.
fn ranges(annotation: &'static str, text: &str) -> Result<BTreeSet<IpNet>, AnnotationError> {
    entries(text)
        .map(|entry| {
            let range = entry
                .parse::<IpNet>()
                .or_else(|_| entry.parse::<std::net::IpAddr>().map(IpNet::from));
            range.map(|range| range.trunc()).map_err(|_| AnnotationError {
                annotation,
                value: entry.into(),
                expected: "an address range (10.0.0.0/8, fd00::/8)",
            })
        })
        .collect()
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}
