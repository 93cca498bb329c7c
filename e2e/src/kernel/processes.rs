//! The processes of this machine, in whatever namespaces they are.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where the kernel shows the control groups of memory.
const GROUPS: &str = "/sys/fs/cgroup/memory";

/// The processes that run a program of this name with this argument, if one is given.
pub fn running(name: &str, argument: Option<&str>) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?.file_name();
        let Some(process) = entry.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if program(process).is_some_and(|running| running == name)
            && argument.is_none_or(|wanted| arguments(process).iter().any(|given| given == wanted))
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// The name of the program that a process runs, if it still does.
#[must_use]
pub fn program(process: u32) -> Option<String> {
    let path = std::fs::read_link(of(process, "exe")).ok()?;
    let name = path.file_name()?.to_str()?;
    // What it was started from may be gone.
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

/// The process that started a process.
pub fn parent(process: u32) -> anyhow::Result<u32> {
    let status = std::fs::read_to_string(of(process, "status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(parent.context("a process without a parent")?.trim().parse()?)
}

/// The control group that accounts the memory of a process.
pub fn control_group(process: u32) -> anyhow::Result<PathBuf> {
    let groups = std::fs::read_to_string(of(process, "cgroup"))?;
    let group = groups.lines().find_map(|line| line.split_once(":memory:"));
    let (_, group) = group.with_context(|| format!("process {process} is in no group of memory"))?;
    Ok(Path::new(GROUPS).join(group.trim_start_matches('/')))
}

fn arguments(process: u32) -> Vec<String> {
    let line = std::fs::read_to_string(of(process, "cmdline")).unwrap_or_default();
    line.split('\0').map(str::to_owned).collect()
}

pub(super) fn of(process: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{file}"))
}
