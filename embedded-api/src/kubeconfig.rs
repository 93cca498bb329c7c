//! Kubeconfigs: how clients reach the API and as whom. Files are the owner's alone: they hold a credential.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A kubeconfig with one user, by a bearer token.
#[must_use]
pub(crate) fn make(address: SocketAddr, authority_pem: &str, user: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "trefoil", "preferences": {},
        "clusters": [{ "name": "trefoil", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(authority_pem),
        } }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "trefoil", "context": { "cluster": "trefoil", "user": user, "namespace": "default" } }],
    })
}

/// Writes a kubeconfig, mode 0600, in one step: a reader sees the old one or the new one.
///
/// The folder is made if absent.
///
/// # Errors
/// When it cannot be written to.
pub(crate) fn write(path: &Path, kubeconfig: &Value) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        // JSON is YAML.
        writeln!(file, "{kubeconfig:#}")?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // Whether or not it is there.
        let _ = std::fs::remove_file(&temporary);
    })
}
