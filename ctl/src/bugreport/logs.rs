//! The logs of the mesh's own processes; never those of applications.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use trefoil_api::names::{MANAGER, MESH_NAMESPACE, SIDECAR_CONTAINER, label};
use trefoil_local::mesh::Mesh;

use super::archive::FILE_BYTES;
use super::{Report, SIDECARS};
use crate::look;

/// The last lines of a log.
const LINES: i64 = 10_000;

/// Adds them.
pub(super) async fn collect(report: &mut Report<'_>) -> anyhow::Result<()> {
    let api = Api::<Pod>::all(report.planes.client().clone());
    let mut unseen = Vec::new();
    let pods = report
        .within("logs", look::list(&api, "pods for their logs", &mut unseen))
        .await;
    let pods = pods.unwrap_or_default();
    match report.planes.local().cloned() {
        Some(mesh) => of_machine(report, &mesh, &pods),
        None => of_cluster(report, &pods).await,
    }
}

/// The containers of the mesh in a pod, and how often each was started again.
fn containers(pod: &Pod) -> Vec<(String, i32)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let ours = pod.namespace().as_deref() == Some(MESH_NAMESPACE)
        || pod
            .labels()
            .get(label::MANAGED_BY)
            .is_some_and(|by| by == MANAGER);
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let named = all.filter(|one| ours || one.name == SIDECAR_CONTAINER);
    let status = pod.status.as_ref();
    let restarts = |name: &str| {
        let states = status.iter().flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        states
            .into_iter()
            .find(|state| state.name == name)
            .map_or(0, |state| state.restart_count)
    };
    named.map(|one| (one.name.clone(), restarts(&one.name))).collect()
}

async fn of_cluster(report: &mut Report<'_>, pods: &[Pod]) -> anyhow::Result<()> {
    let mut sidecars = 0;
    for pod in pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let pods = Api::<Pod>::namespaced(report.planes.client().clone(), &namespace);
        for (container, restarts) in containers(pod) {
            sidecars += usize::from(container == SIDECAR_CONTAINER);
            if container == SIDECAR_CONTAINER && sidecars > SIDECARS {
                continue;
            }
            // What a container said before it was started again is what its crash is understood by.
            for previous in [false, true].into_iter().take(1 + usize::from(restarts > 0)) {
                let parameters = LogParams {
                    container: Some(container.clone()),
                    previous,
                    tail_lines: Some(LINES),
                    ..LogParams::default()
                };
                let file = format!(
                    "logs/{namespace}.{name}.{container}{}.log",
                    if previous { ".previous" } else { "" }
                );
                let log = async { anyhow::Ok(pods.logs(&name, &parameters).await?) };
                if let Some(log) = report.within(&file, log).await {
                    report.archive.log(&file, &log)?;
                }
            }
        }
    }
    if sidecars > SIDECARS {
        report.archive.lacks(format!(
            "logs of {} sidecars, beyond the first {SIDECARS}",
            sidecars - SIDECARS
        ));
    }
    Ok(())
}

fn of_machine(report: &mut Report<'_>, mesh: &Mesh, pods: &[Pod]) -> anyhow::Result<()> {
    let mut files = vec![("logs/daemon.log".to_owned(), mesh.daemon_log())];
    let logs = mesh.log("any");
    let folder = logs.parent().map(std::fs::read_dir);
    for entry in folder.into_iter().flatten().flatten().filter_map(Result::ok) {
        files.push((
            format!("logs/{}", entry.file_name().to_string_lossy()),
            entry.path(),
        ));
    }
    for pod in pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let path = mesh.pod_directory(&namespace, &name).join("sidecar.log");
        if path.exists() {
            files.push((format!("logs/{namespace}.{name}.{SIDECAR_CONTAINER}.log"), path));
        }
    }
    for (name, path) in files {
        match tail(&path) {
            Ok(log) => report.archive.log(&name, &log)?,
            Err(error) => report.archive.lacks(format!("{name}: {error:#}")),
        }
    }
    Ok(())
}

/// The last bytes of a file, as many as fit.
fn tail(path: &Path) -> anyhow::Result<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(FILE_BYTES as u64)))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
