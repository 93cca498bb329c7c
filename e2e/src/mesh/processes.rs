//! The processes of a local mesh, as the kernel knows them: found by their command lines, ended by signals.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Mesh, eventually};

/// A part of the mesh that can be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The unprivileged workers of a node's proxy.
    Worker,
    /// The supervisor of a node's proxy.
    Supervisor,
    /// A node's agent.
    Agent,
    /// The control plane.
    ControlPlane,
}

impl Part {
    fn matches(self, program: &str, arguments: &[&str]) -> bool {
        let command = arguments.get(1).copied().unwrap_or_default();
        let (wanted_program, wanted_command) = match self {
            Self::Worker => ("trefoil-node", "worker"),
            Self::Supervisor => ("trefoil-node", "run"),
            Self::Agent => ("trefoil-cni", "agent"),
            Self::ControlPlane => ("trefoil-control-plane", "run"),
        };
        program == wanted_program && command == wanted_command
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Supervisor => "supervisor",
            Self::Agent => "agent",
            Self::ControlPlane => "control plane",
        })
    }
}

impl Mesh {
    /// The processes of a part on a node (the control plane is on none). They are told from those of
    /// other meshes by their network namespace.
    pub fn processes_of(&self, part: Part, node: &str) -> anyhow::Result<Vec<u32>> {
        let netns = match part {
            Part::ControlPlane => self.lan(),
            _ => self.node(node),
        };
        let wanted = network_namespace(&Path::new("/run/netns").join(netns))?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(process) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            // Processes that end meanwhile are none of ours.
            let Ok(command) = std::fs::read_to_string(path.join("cmdline")) else {
                continue;
            };
            let arguments: Vec<&str> = command.split('\0').collect();
            let here = network_namespace(&path.join("ns/net")).is_ok_and(|own| own == wanted);
            // What it was started by may be gone, when the mesh is being built anew.
            let executable = std::fs::read_link(path.join("exe")).unwrap_or_default();
            let program = executable.file_name().unwrap_or_default().to_string_lossy();
            if here && part.matches(program.trim_end_matches(" (deleted)"), &arguments) {
                found.push(process);
            }
        }
        Ok(found)
    }

    /// The process that runs an executable in a named network namespace.
    pub fn process_in(&self, netns: &str, executable: &Path) -> anyhow::Result<u32> {
        let wanted = network_namespace(&Path::new("/run/netns").join(netns))?;
        let executable = std::fs::canonicalize(executable)?;
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let here = network_namespace(&path.join("ns/net")).is_ok_and(|own| own == wanted);
            if here && std::fs::read_link(path.join("exe")).is_ok_and(|exe| exe == executable) {
                let name = path.file_name().and_then(|name| name.to_str());
                return Ok(name.context("a process")?.parse()?);
            }
        }
        bail!("{} does not run in {netns}", executable.display())
    }

    /// Ends all processes of a part with SIGKILL and waits until others run in their place.
    pub async fn kill(&self, part: Part, node: &str) -> anyhow::Result<usize> {
        let before = self.processes_of(part, node)?;
        ensure!(!before.is_empty(), "no {part} runs on {node}");
        for process in &before {
            signal(*process, Signal::KILL)?;
        }
        eventually(Duration::from_secs(30), async || {
            let now = self.processes_of(part, node)?;
            ensure!(
                now.len() >= before.len() && now.iter().all(|process| !before.contains(process)),
                "{part}: {now:?} instead of {before:?}"
            );
            Ok(before.len())
        })
        .await
    }
}

/// Sends a signal to a process.
pub fn signal(process: u32, signal: Signal) -> anyhow::Result<()> {
    let process = Pid::from_raw(process.cast_signed()).context("no process")?;
    kill_process(process, signal).with_context(|| format!("signal to process {process:?}"))
}

/// What tells one network namespace from another.
fn network_namespace(path: &Path) -> anyhow::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok((metadata.dev(), metadata.ino()))
}
