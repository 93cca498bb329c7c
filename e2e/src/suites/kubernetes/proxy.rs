//! A node's proxy as the machine sees it: its processes, what they carry, and the control group of their
//! container. Ends them by a signal, or lets the kernel do it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::kernel::{connections, control_group, running, sockets_of};
use crate::mesh::eventually;
use crate::mesh::processes::signal;
use crate::programs::load::now;
use crate::programs::port;

/// The container of a node's proxy.
pub(super) struct Container {
    group: PathBuf,
}

/// The end of a process that carried connections.
#[derive(Debug)]
pub(super) struct Ending {
    /// From when on it may have served nobody, in milliseconds since the epoch: it still took what came.
    pub(super) failing: u64,
    /// A moment at which it was still there, in milliseconds since the epoch.
    pub(super) before: u64,
    /// A moment at which it was not.
    pub(super) after: u64,
    /// Processes that ended.
    pub(super) processes: usize,
    /// Connections to the application that they had until then.
    pub(super) carried: usize,
}

impl Container {
    /// That of a node.
    pub(super) fn on(node: &str) -> anyhow::Result<Self> {
        let node = format!("kubenet-{node}");
        for process in running("trefoil-node", Some("run"))? {
            let group = control_group(process)?;
            if group.iter().any(|part| part == node.as_str()) {
                return Ok(Self { group });
            }
        }
        anyhow::bail!("no node proxy runs on {node}")
    }

    /// Its processes.
    pub(super) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let processes = self.read("cgroup.procs")?;
        processes.lines().map(|line| Ok(line.parse()?)).collect()
    }

    /// The connections that each of its processes has to the HTTP port of the application that `server` is.
    pub(super) fn carried(&self, server: u32) -> anyhow::Result<Vec<(u32, usize)>> {
        let all = connections(server)?;
        let carried = |process| {
            let held = sockets_of(process);
            all.iter()
                .filter(|one| one.remote.port() == port::HTTP && held.contains(&one.socket))
                .count()
        };
        let processes = self.processes()?.into_iter();
        Ok(processes.map(|process| (process, carried(process))).collect())
    }

    /// Ends all of its processes at once, as the runtime would.
    pub(super) fn kill(&self, server: u32) -> anyhow::Result<Ending> {
        let carried = self.carried(server)?;
        let before = now();
        for (process, _) in &carried {
            // Workers may end with their supervisor.
            let _ = signal(*process, Signal::KILL);
        }
        Ok(Ending {
            failing: before,
            before,
            after: now(),
            processes: carried.len(),
            carried: carried.iter().map(|(_, carried)| carried).sum(),
        })
    }

    /// Takes away the memory that is not in use until the kernel has killed something, then gives it back.
    pub(super) async fn starve(&self, server: u32) -> anyhow::Result<Ending> {
        let kills = self.number("memory.oom_control", "oom_kill ")?;
        let mut carried = self.carried(server)?;
        let mut limit = self.number("memory.stat", "total_rss ")?;
        let limited = Limited(self);
        let failing = now();
        // Less than what is in use already is refused.
        while self.limit(&limit.to_string()).is_err() {
            limit += 256 * 1024;
        }
        let begun = Instant::now();
        let (mut before, mut looked) = (now(), begun);
        loop {
            let at = now();
            let due = looked.elapsed() > Duration::from_millis(100);
            let look = due.then(|| self.carried(server)).transpose();
            let killed = self.number("memory.oom_control", "oom_kill ");
            // The container ends with its first process, and its control group with it.
            if !self.group.exists() || killed? != kills {
                break;
            }
            // Nobody was killed until here: that is what was seen on the living.
            before = at;
            if let Some(look) = look? {
                (carried, looked) = (look, Instant::now());
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(20),
                "the kernel killed nothing"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = now();
        drop(limited);
        eventually(Duration::from_secs(10), async || {
            let gone = carried
                .iter()
                .filter(|(process, _)| sockets_of(*process).is_empty());
            let gone: Vec<usize> = gone.map(|(_, carried)| *carried).collect();
            ensure!(!gone.is_empty(), "nobody has ended");
            Ok(Ending {
                failing,
                before,
                after,
                processes: gone.len(),
                carried: gone.iter().sum(),
            })
        })
        .await
    }

    fn limit(&self, bytes: &str) -> std::io::Result<()> {
        std::fs::write(self.group.join("memory.limit_in_bytes"), bytes)
    }

    fn number(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        let text = self.read(file)?;
        let number = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(number
            .with_context(|| format!("{file} says nothing of {name}"))?
            .parse()?)
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = self.group.join(file);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

/// A limit, which must not stay.
struct Limited<'a>(&'a Container);

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        // Fails only where the container is gone, and its limit with it.
        let _ = self.0.limit("-1");
    }
}
