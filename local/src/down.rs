//! Removes every trace of a mesh on this machine by its names alone: it works after any crash.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nlink::netlink::namespace::{self, Netns};
use rustix::process::{Pid, Signal, kill_process};

use super::mesh::{Mesh, STATE_ROOT};
use super::protocol::{Conversation, Request};
use super::{network, pod};

/// Ends a mesh, and removes every trace of it; whether there was any.
pub async fn down(mesh: &Mesh) -> anyhow::Result<bool> {
    let daemon = daemon(mesh);
    let asked = match Conversation::with_daemon(mesh).await {
        Ok(mut conversation) => conversation.ask(&Request::Stop).await.is_ok(),
        Err(_) => false,
    };
    if asked {
        let gone = async {
            // A pod that was being made as it ended may have come after it tidied up: that is removed below.
            while daemon.map_or_else(|| mesh.directory().exists(), runs) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // A daemon that hangs is ended by name below.
        let _ = tokio::time::timeout(Duration::from_secs(20), gone).await;
    }
    let left = remove(mesh).await?;
    let _ = fs::remove_file(mesh.daemon_log());
    Ok(asked || left)
}

/// Removes the processes, namespaces and files of a mesh; whether there were any.
pub(crate) async fn remove(mesh: &Mesh) -> anyhow::Result<bool> {
    end_daemon(mesh).await;
    let namespaces = namespace::list_owned(&mesh.owner())?;
    for netns in &namespaces {
        end_processes(netns).await;
        network::remove_namespace(netns)?;
    }
    let directory = mesh.directory();
    let had_files = directory.exists();
    if had_files {
        fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    // These are shared by all meshes, and stay while there is another one.
    if fs::remove_dir(STATE_ROOT).is_ok() {
        for path in [pod::ROOT_MOUNT, "/run/secrets", "/run/trefoil"] {
            let _ = fs::remove_dir(path);
        }
    }
    Ok(had_files || !namespaces.is_empty())
}

/// What there is of a mesh: its network namespaces, its files, its daemon.
pub fn traces(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let namespaces = namespace::list_owned(&mesh.owner())?;
    let mut traces: Vec<String> = namespaces
        .iter()
        .map(|netns| format!("network namespace {netns}"))
        .collect();
    let files = [mesh.directory(), mesh.daemon_log()];
    let files = files.iter().filter(|path| path.exists());
    traces.extend(files.map(|path| path.display().to_string()));
    traces.extend(
        daemon(mesh)
            .filter(|pid| runs(*pid))
            .map(|pid| format!("process {}", pid.as_raw_nonzero())),
    );
    Ok(traces)
}

/// The daemon, by its own word, unless it is this process.
pub(crate) fn daemon(mesh: &Mesh) -> Option<Pid> {
    let written = fs::read_to_string(mesh.pid_file()).ok()?;
    let pid = written.trim().parse().ok()?;
    (pid != std::process::id().cast_signed())
        .then(|| Pid::from_raw(pid))
        .flatten()
}

/// Whether it has not ended. One that has, and was not waited for, has no program any more.
pub(crate) fn runs(daemon: Pid) -> bool {
    fs::read_link(format!("/proc/{}/exe", daemon.as_raw_nonzero())).is_ok()
}

/// Ends a daemon that no longer answers.
async fn end_daemon(mesh: &Mesh) {
    let Some(pid) = daemon(mesh) else {
        return;
    };
    let process = format!("/proc/{}/comm", pid.as_raw_nonzero());
    for _ in 0..200 {
        if !fs::read_to_string(&process).is_ok_and(|name| name.trim() == "trefoilctl") {
            return;
        }
        // It may have ended in between.
        let _ = kill_process(pid, Signal::KILL);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends every process in a network namespace.
pub(crate) async fn end_processes(netns: &str) {
    let Ok(namespace) = Netns::open(netns) else { return };
    for _ in 0..200 {
        let pids = namespace.pids().unwrap_or_default();
        if pids.is_empty() {
            return;
        }
        for pid in pids
            .into_iter()
            .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
        {
            // It may have ended in between.
            let _ = kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
