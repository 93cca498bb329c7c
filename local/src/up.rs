//! Starts the daemon of a mesh, through the executable that this process is.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::mesh::Mesh;

pub use super::daemon::{Options, run as serve};

/// How long a mesh may take to come up.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts a daemon, and waits until it answers.
pub async fn start(mesh: &Mesh, options: &Options) -> anyhow::Result<()> {
    let log = mesh.daemon_log();
    let file = fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "local",
        "--mesh",
        &mesh.name,
        "up",
        "--foreground",
        "--detached",
        "--nodes",
    ]);
    command.arg(options.nodes.to_string());
    for (flag, value) in [
        ("--certificate-lifetime", &options.certificate_lifetime),
        ("--isolation", &options.isolation),
    ] {
        if let Some(value) = value {
            command.args([flag, value]);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0);
    let mut daemon = Starting(Some(command.spawn().context("starting the daemon")?));
    let answers = async {
        loop {
            if tokio::net::UnixStream::connect(mesh.socket()).await.is_ok() {
                daemon.0 = None;
                return anyhow::Ok(());
            }
            if let Some(child) = &mut daemon.0
                && child.try_wait()?.is_some()
            {
                let said = fs::read_to_string(&log).unwrap_or_default();
                anyhow::bail!("the mesh did not come up:\n{}", said.trim());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answers)
        .await
        .context("the mesh did not come up in time")?
}

/// A daemon that does not answer yet. Whoever gives up waiting for it, as one that is interrupted does, ends
/// it: one that has written no pid file yet would be found by nobody and go on.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.0 {
            // It may have ended in between.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
