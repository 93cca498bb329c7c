//! Finds processes by the pod that they run in, from their control groups. Reads `/proc` only.

use std::io;
use std::path::Path;

use super::Namespace;

/// Whether a process runs in the pod of this uid, as its control groups say.
#[must_use]
pub fn runs_in_pod(proc_root: &Path, process: i32, pod_uid: &str) -> bool {
    let path = proc_root.join(process.to_string()).join("cgroup");
    std::fs::read_to_string(path).is_ok_and(|text| names_pod(&text, pod_uid))
}

/// Whether `process` was started by `parent`.
#[must_use]
pub fn descends_from(proc_root: &Path, process: i32, parent: i32) -> bool {
    let path = proc_root.join(process.to_string()).join("stat");
    std::fs::read_to_string(path).is_ok_and(|text| parent_in(&text) == Some(parent))
}

/// The network namespace of a running pod: that of its oldest process that is not in the host's.
pub fn find_of_pod(proc_root: &Path, pod_uid: &str, host: &Namespace) -> io::Result<Namespace> {
    let mut oldest: Option<(u64, Namespace)> = None;
    for entry in std::fs::read_dir(proc_root)? {
        let entry = entry?;
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !runs_in_pod(proc_root, process, pod_uid) {
            continue;
        }
        // A process may end while it is looked at.
        let Ok(namespace) = Namespace::open(&entry.path().join("ns/net")) else {
            continue;
        };
        let Some(started) = started(&entry.path()) else {
            continue;
        };
        if namespace.identity() != host.identity() && oldest.as_ref().is_none_or(|(age, _)| started < *age) {
            oldest = Some((started, namespace));
        }
    }
    let found = oldest.map(|(_, namespace)| namespace);
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no process of the pod runs"))
}

/// Whether a `cgroup` file names the pod: cgroupfs writes the uid as it is, systemd with underscores.
pub(super) fn names_pod(text: &str, pod_uid: &str) -> bool {
    if pod_uid.len() < 8 {
        return false;
    }
    let marker = format!("pod{pod_uid}");
    let systemd = marker.replace('-', "_");
    text.lines().any(|line| {
        line.split('/').any(|segment| {
            let segment = segment.strip_suffix(".slice").unwrap_or(segment);
            segment.ends_with(&marker) || segment.ends_with(&systemd)
        })
    })
}

/// The fields after the command's name, which may itself contain anything.
fn fields(stat: &str) -> Option<Vec<&str>> {
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().collect())
}

pub(super) fn parent_in(stat: &str) -> Option<i32> {
    fields(stat)?.get(1)?.parse().ok()
}

fn started(process: &Path) -> Option<u64> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    fields(&stat)?.get(19)?.parse().ok()
}
