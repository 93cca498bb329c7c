//! How the cluster is left: nothing in it crashes by itself, and what the mesh's parts take of memory.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::Cluster;
use crate::kernel::{control_group, running};
use crate::report::Report;

/// The mesh's programs, how many of their processes there are at least, and what one may take, in MiB: several
/// times what it does, so that only growth without end fails.
const PROGRAMS: [(&str, usize, u64); 4] = [
    ("trefoil-control-plane", 2, 200),
    ("trefoil-cni", 3, 100),
    // A supervisor and a worker on each node.
    ("trefoil-node", 6, 200),
    ("trefoil-sidecar", 7, 100),
];

/// What kubectl prints of several pods.
#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

pub(super) async fn run(cluster: &Cluster, report: &mut Report) {
    report.check("nothing crashes by itself", stable(cluster).await);
    report.check("memory of the mesh's processes", memory());
}

/// Every container runs, or is done, and none was started again but that which the suite ended.
async fn stable(cluster: &Cluster) -> anyhow::Result<String> {
    let pods = cluster.kubectl(&["get", "pods", "-A", "-o", "json"]).await?;
    let pods: Pods = serde_json::from_str(&pods).context("reading the pods")?;
    let (mut containers, mut again) = (0, 0);
    for pod in &pods.items {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let status = pod.status.as_ref().context("a pod without a status")?;
        let done = status.phase.as_deref() == Some("Succeeded");
        let statuses = status.container_statuses.iter().flatten();
        for container in statuses.chain(status.init_container_statuses.iter().flatten()) {
            let state = container.state.as_ref().context("a container without a state")?;
            ensure!(
                done || state.running.is_some() && container.ready,
                "{} of {name} does not run: {state:?}",
                container.name
            );
            let ended_by_us =
                name.starts_with("trefoil-node-") && status.host_ip.as_deref() == Some("172.30.0.12");
            ensure!(
                container.restart_count == 0 || ended_by_us && container.restart_count <= 2,
                "{} of {name} was started again {} times",
                container.name,
                container.restart_count
            );
            containers += 1;
            again += container.restart_count;
        }
    }
    ensure!(containers >= 20, "only {containers} containers");
    Ok(format!(
        "{containers} containers in {} pods; {again} started again, after the suite ended it",
        pods.items.len()
    ))
}

/// Resident memory of each process, of its own and shared, as the kernel counts it.
fn memory() -> anyhow::Result<String> {
    let mut said = BTreeMap::new();
    for (program, least, most) in PROGRAMS {
        let mut sizes = Vec::new();
        for process in running(program, None)? {
            if control_group(process)?
                .iter()
                .any(|part| part.to_string_lossy().starts_with("kubenet-"))
            {
                sizes.push(resident(process)?);
            }
        }
        sizes.sort_unstable();
        ensure!(sizes.len() >= least, "{} processes of {program}", sizes.len());
        let mebibytes: Vec<String> = sizes.iter().map(|size| (size / 1024).to_string()).collect();
        let largest = sizes.last().copied().unwrap_or_default() / 1024;
        ensure!(
            largest > 0 && largest <= most,
            "{program} takes {mebibytes:?} MiB"
        );
        said.insert(program, mebibytes.join(", "));
    }
    let said: Vec<String> = said
        .iter()
        .map(|(program, sizes)| format!("{program} {sizes}"))
        .collect();
    Ok(format!("{} MiB", said.join("; ")))
}

/// In KiB.
fn resident(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.and_then(|line| line.split_whitespace().next());
    Ok(size.context("no resident size")?.parse()?)
}
