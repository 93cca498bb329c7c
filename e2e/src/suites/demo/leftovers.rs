//! What a mesh may leave on this machine, looked for in the kernel and on disk: processes, network namespaces,
//! links and nftables tables of the host, files. Never asks the mesh's own programs.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use tokio::process::Command;

/// For how long nothing may come back.
const QUIET: Duration = Duration::from_secs(1);

/// A process, told from a later one of the same id by when it began.
type Process = (u32, String);

/// The processes of a mesh at some moment.
#[derive(Debug, Default)]
pub(super) struct Trace(BTreeSet<Process>);

impl Trace {
    /// Those that run in its network namespaces now, and those whose arguments name it.
    pub(super) fn of(mesh: &str) -> anyhow::Result<Self> {
        let namespaces: BTreeSet<(u64, u64)> = namespaces(mesh)?
            .iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|metadata| (metadata.dev(), metadata.ino()))
            .collect();
        let inside = |process: &Path| {
            let metadata = std::fs::metadata(process.join("ns/net"));
            metadata.is_ok_and(|metadata| namespaces.contains(&(metadata.dev(), metadata.ino())))
        };
        let all = processes()?;
        let of_mesh = all
            .into_iter()
            .filter(|(path, _)| inside(path) || arguments(path).contains(mesh));
        Ok(Self(of_mesh.map(|(_, process)| process).collect()))
    }
}

/// Whether a program with these arguments runs, of a mesh.
pub(super) fn program_runs(mesh: &str, wanted: &[&str]) -> anyhow::Result<bool> {
    let of_mesh = Trace::of(mesh)?.0;
    Ok(of_mesh.iter().any(|(id, _)| {
        let arguments = arguments(&Path::new("/proc").join(id.to_string()));
        let arguments: Vec<&str> = arguments.split('\0').collect();
        arguments.get(1..).is_some_and(|rest| rest.starts_with(wanted))
    }))
}

/// Links and nftables tables of the host's own network namespace.
pub(super) async fn host() -> anyhow::Result<String> {
    let mut said = String::new();
    for command in [
        &["nft", "list", "tables"][..],
        &["ip", "-br", "link"],
        &["ip", "rule"],
    ] {
        let output = Command::new(command[0]).args(&command[1..]).output().await?;
        ensure!(output.status.success(), "{command:?}: {}", output.status);
        said.push_str(&String::from_utf8(output.stdout)?);
    }
    Ok(said)
}

/// Nothing of the mesh is there, and nothing comes back.
pub(super) async fn none(mesh: &str, trace: &Trace, before: &str) -> anyhow::Result<String> {
    look(mesh, trace, before).await?;
    // What goes on making a mesh that was removed would show.
    tokio::time::sleep(QUIET).await;
    look(mesh, trace, before).await?;
    Ok(format!("{} processes have ended", trace.0.len()))
}

async fn look(mesh: &str, trace: &Trace, before: &str) -> anyhow::Result<()> {
    let now: BTreeSet<Process> = processes()?.into_iter().map(|(_, process)| process).collect();
    let still: Vec<String> = trace.0.intersection(&now).map(described).collect();
    ensure!(still.is_empty(), "processes: {still:?}");
    let named: Vec<String> = Trace::of(mesh)?.0.iter().map(described).collect();
    ensure!(named.is_empty(), "processes: {named:?}");
    let namespaces = namespaces(mesh)?;
    ensure!(namespaces.is_empty(), "network namespaces: {namespaces:?}");
    for path in [
        Path::new("/run/trefoil/local").join(mesh),
        std::env::temp_dir().join(format!("trefoil-local-{mesh}.log")),
    ] {
        ensure!(!path.exists(), "{}", path.display());
    }
    let host = host().await?;
    ensure!(host == before, "on the host: {host} instead of {before}");
    Ok(())
}

fn namespaces(mesh: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let folder = Path::new("/run/netns");
    if !folder.exists() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(mesh) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn processes() -> anyhow::Result<Vec<(PathBuf, Process)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        // One that ends meanwhile is none; one that has ended and was not waited for holds nothing.
        let (Some(id), Ok(stat)) = (id, std::fs::read_to_string(path.join("stat"))) else {
            continue;
        };
        // The name, in brackets, may hold anything: fields count from its end.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let (state, begun) = (fields.get(1), fields.get(20));
        if let (Some(state), Some(begun)) = (state, begun)
            && *state != "Z"
        {
            found.push((path, (id, (*begun).to_owned())));
        }
    }
    Ok(found)
}

fn described((id, _): &Process) -> String {
    let process = Path::new("/proc").join(id.to_string());
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let of = |key| {
        status
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
    };
    let arguments = arguments(&process).replace('\0', " ");
    format!("{id} {arguments:?} {} {}", of("State"), of("PPid"))
}

fn arguments(process: &Path) -> String {
    std::fs::read_to_string(process.join("cmdline")).unwrap_or_default()
}
