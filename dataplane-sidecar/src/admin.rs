//! The `admin` subcommand: what an exec reaches in an image without a shell.

use std::io::Write;

use anyhow::{Context, bail};

use crate::options::Admin;

/// Asks, prints what is answered, and fails where the answer is an error.
pub(crate) async fn ask(admin: &Admin) -> anyhow::Result<()> {
    let path = format!("/{}", admin.path.trim_start_matches('/'));
    let body = admin.body.clone().into_bytes();
    let asked = trefoil_dataplane_core::admin::ask(&admin.admin_socket, &admin.method, &path, body);
    let answer = asked.await.context("the running sidecar")?;
    let mut out = std::io::stdout().lock();
    out.write_all(&answer.body)?;
    if !answer.body.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    if answer.status >= 400 {
        bail!("{} {path}: HTTP {}", admin.method, answer.status);
    }
    Ok(())
}
