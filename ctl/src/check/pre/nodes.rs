//! What Node objects say of whether their nodes can carry the mesh, and what they do not say.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Looked;
use crate::check::versions::parsed;
use crate::uninstall::{Objects, list, name};

/// Redirection is NAT in tables of family inet.
const KERNEL: (u32, u32) = (5, 2);
/// Sidecars are init containers that go on.
const KUBELET: (u32, u32) = (1, 29);

/// Of all nodes: those that are alike are said together.
pub(super) fn judged(objects: &Objects) -> Vec<Looked> {
    let mut by_finding: BTreeMap<(String, u8), (Looked, Vec<String>)> = BTreeMap::new();
    for node in objects.of("nodes") {
        for (place, looked) in judged_one(&node["status"]).into_iter().enumerate() {
            let key = (looked.found.clone(), u8::try_from(place).unwrap_or(u8::MAX));
            let (_, nodes) = by_finding.entry(key).or_insert_with(|| (looked, Vec::new()));
            nodes.push(name(node).to_owned());
        }
    }
    let mut looked: Vec<Looked> = by_finding
        .into_values()
        .map(|(looked, nodes)| Looked {
            at: format!("{} of {}", looked.at, some(&nodes)),
            ..looked
        })
        .collect();
    if !looked.is_empty() {
        looked.push(Looked::unknown(
            "kernel features of nodes",
            "nf_tables with NAT and redirect, nf_conntrack, policy routing by mark, and a /proc/sys that agents may write: \
             no Node object says, the agent does when it starts (`trefoilctl check` shows it)",
        ));
    }
    looked
}

fn judged_one(status: &Value) -> Vec<Looked> {
    let text = |key: &str| status["nodeInfo"][key].as_str().unwrap_or_default();
    let mut looked = Vec::new();
    let (system, architecture) = (text("operatingSystem"), text("architecture"));
    if system != "linux" {
        looked.push(Looked::odd(
            "operating system",
            format!("{system}: pods there stay outside the mesh"),
            "keep what is to be in the mesh on nodes of Linux",
        ));
        return looked;
    }
    looked.push(match architecture {
        "amd64" => Looked::good("architecture", "amd64"),
        other => Looked::bad(
            "architecture",
            format!("{other}: images are built for amd64"),
            "build images for it, or keep the mesh's DaemonSets off these nodes and their pods out of the mesh",
        ),
    });
    looked.push(at_least(
        "kernel",
        text("kernelVersion"),
        KERNEL,
        "a newer kernel",
    ));
    looked.push(at_least(
        "kubelet",
        text("kubeletVersion"),
        KUBELET,
        "a newer kubelet: sidecars are init containers that go on",
    ));
    let runtime = text("containerRuntimeVersion");
    looked.push(match runtime.split("://").next() {
        Some("containerd" | "cri-o") => Looked::good("container runtime", runtime),
        _ => Looked::odd(
            "container runtime",
            format!("{runtime}: not known to call CNI plugins as containerd and CRI-O do"),
            "try the mesh on one such node first",
        ),
    });
    looked.push(network(status));
    looked
}

/// A kubelet is ready only where its runtime has found a CNI configuration.
fn network(status: &Value) -> Looked {
    let ready = list(&status["conditions"])
        .iter()
        .find(|one| one["type"] == "Ready");
    match ready.map(|one| {
        (
            one["status"].as_str(),
            one["message"].as_str().unwrap_or_default(),
        )
    }) {
        Some((Some("True"), _)) => Looked::good("CNI configuration", "there: kubelet is ready"),
        Some((_, why)) if why.contains("cni") || why.contains("network") => Looked::bad(
            "CNI configuration",
            format!("kubelet is not ready: {why}"),
            "install a network plugin first",
        ),
        _ => Looked::unknown(
            "CNI configuration",
            "kubelet is not ready, and does not say that the network is why",
        ),
    }
}

/// That a version is not below one.
pub(super) fn at_least(what: &str, version: &str, (major, minor): (u32, u32), remedy: &str) -> Looked {
    match parsed(version) {
        None => Looked::unknown(what, format!("its version cannot be read: {version:?}")),
        Some(found) if found >= (major, minor) => Looked::good(what, version),
        Some(_) => Looked::bad(what, format!("{version}: below {major}.{minor}"), remedy),
    }
}

fn some(nodes: &[String]) -> String {
    match nodes {
        [one] => format!("node {one}"),
        [one, another] => format!("nodes {one} and {another}"),
        [first, .., _] => format!("{} nodes such as {first}", nodes.len()),
        [] => "no node".into(),
    }
}
