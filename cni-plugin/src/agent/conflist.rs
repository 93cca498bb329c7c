//! Puts the plugin at the end of the node's CNI configuration and keeps it there when others rewrite that;
//! takes it out again on request. Other people's keys and plugins are left as they are.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::options::Options;
use crate::attachment::replace;

#[cfg(test)]
mod tests;

/// Name of the plugin, as type and executable.
pub const PLUGIN: &str = "trefoil-cni";
/// How often the configuration is looked at.
const REVIEW: Duration = Duration::from_secs(1);

/// Why the plugin is not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file.
    #[error("CNI: {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// What is wrong.
        error: io::Error,
    },
    /// No network is configured yet.
    #[error("CNI: no network is configured in {0} yet")]
    NoNetwork(String),
    /// Not a list of plugins.
    #[error("CNI: {path}: {problem}")]
    NotAList {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// The plugin's entry in a list.
#[must_use]
pub fn entry(options: &Options) -> Value {
    let run = options.host_run_dir.as_ref().unwrap_or(&options.run_dir);
    let state = options.host_state_dir.as_ref().unwrap_or(&options.state_dir);
    json!({"type": PLUGIN, "runDir": run, "stateDir": state, "excludeNamespaces": []})
}

/// Copies this executable to where the runtime looks for plugins; in one step, as calls may be under way.
pub fn install_binary(folder: &Path) -> Result<(), InstallError> {
    use std::os::unix::fs::PermissionsExt;

    let target = folder.join(PLUGIN);
    let draft = folder.join(format!(".{PLUGIN}-{}", std::process::id()));
    let placed = std::fs::copy("/proc/self/exe", &draft)
        .and_then(|_| std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&draft, &target));
    placed.map_err(io_error(&target))
}

/// Keeps the plugin in the configuration until the task is dropped; while the mesh is being removed, out of it.
pub(super) async fn keep(
    binaries: PathBuf,
    folder: PathBuf,
    entry: Value,
    removal: watch::Receiver<Option<String>>,
) {
    let mut said = String::new();
    loop {
        let leaves = removal.borrow().is_some();
        let kept = if leaves {
            take_out(&folder)
        } else {
            let placed = binaries.join(PLUGIN).exists();
            let placed = if placed { Ok(()) } else { install_binary(&binaries) };
            placed.and_then(|()| install(&folder, &entry))
        };
        match kept {
            Ok(true) => {
                said.clear();
                let done = if leaves { "taken out of" } else { "added to" };
                tracing::info!(folder = %folder.display(), "CNI plugin {done} the configuration");
            }
            Ok(false) => said.clear(),
            Err(error) if error.to_string() != said => {
                said = error.to_string();
                tracing::warn!(%error, "the CNI configuration is not as it should be");
            }
            Err(_) => {}
        }
        tokio::time::sleep(REVIEW).await;
    }
}

/// Adds the entry to the configuration in force; says whether anything had to be changed.
pub fn install(folder: &Path, entry: &Value) -> Result<bool, InstallError> {
    let path = in_force(folder)?;
    let list = read(&path)?;
    let with = added(list.clone(), entry).map_err(|problem| InstallError::NotAList {
        path: path.display().to_string(),
        problem: problem.into(),
    })?;
    write(&path, &list, &with)
}

/// Whether the configuration in force has the plugin.
#[must_use]
pub fn is_installed(folder: &Path) -> bool {
    let list = in_force(folder).and_then(|path| read(&path));
    let has = |list: Value| {
        let mut plugins = list["plugins"].as_array().into_iter().flatten();
        plugins.any(|plugin| plugin["type"] == PLUGIN)
    };
    list.is_ok_and(has)
}

/// Takes the entry out of every configuration, and the executable away.
pub fn uninstall(binaries: &Path, folder: &Path) -> Result<(), InstallError> {
    take_out(folder)?;
    remove_binary(binaries)
}

/// Takes the entry out of every configuration; says whether it was in any.
pub fn take_out(folder: &Path) -> Result<bool, InstallError> {
    let mut was = false;
    for path in configurations(folder)? {
        let list = match read(&path) {
            Ok(list) => list,
            // What no runtime can read has no entry that would call us.
            Err(error) => {
                tracing::warn!(%error, "left as it is");
                continue;
            }
        };
        was |= write(&path, &list, &removed(list.clone()))?;
    }
    Ok(was)
}

/// Takes the executable away.
pub fn remove_binary(binaries: &Path) -> Result<(), InstallError> {
    let target = binaries.join(PLUGIN);
    match std::fs::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&target)(error)),
        _ => Ok(()),
    }
}

/// A list with the entry at its end, and nowhere else. A single plugin becomes a list of it.
fn added(list: Value, entry: &Value) -> Result<Value, &'static str> {
    let list = if list.get("plugins").is_none() && list.get("type").is_some() {
        json!({"cniVersion": list["cniVersion"], "name": list["name"], "plugins": [list]})
    } else {
        list
    };
    let mut list = removed(list);
    let plugins = list.get_mut("plugins").and_then(Value::as_array_mut);
    plugins.ok_or("has no list of plugins")?.push(entry.clone());
    Ok(list)
}

fn removed(mut list: Value) -> Value {
    if let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) {
        plugins.retain(|plugin| plugin["type"] != PLUGIN);
    }
    list
}

/// The configuration that runtimes use: the first by name.
fn in_force(folder: &Path) -> Result<PathBuf, InstallError> {
    let first = configurations(folder)?.into_iter().next();
    first.ok_or_else(|| InstallError::NoNetwork(folder.display().to_string()))
}

fn configurations(folder: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let entries = std::fs::read_dir(folder).map_err(io_error(folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error(folder))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("conflist" | "conf" | "json")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Value, InstallError> {
    let bytes = std::fs::read(path).map_err(io_error(path))?;
    serde_json::from_slice(&bytes).map_err(|error| InstallError::NotAList {
        path: path.display().to_string(),
        problem: error.to_string(),
    })
}

/// A single plugin's file becomes a list, under the name that runtimes expect of one.
fn write(path: &Path, before: &Value, after: &Value) -> Result<bool, InstallError> {
    if before == after {
        return Ok(false);
    }
    let text = serde_json::to_vec_pretty(after).unwrap_or_default();
    let target = if before.get("plugins").is_none() {
        path.with_extension("conflist")
    } else {
        path.to_path_buf()
    };
    replace(&target, &text).map_err(io_error(&target))?;
    if target != path {
        std::fs::remove_file(path).map_err(io_error(path))?;
    }
    Ok(true)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> InstallError + use<> {
    let path = path.display().to_string();
    move |error| InstallError::Io { path, error }
}
