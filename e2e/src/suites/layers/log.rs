//! The access logs of both ends' planes, read from where they ended before a fault was met: what a line says of
//! an earlier one counts for nothing. Reads the text as people do, and shares no code with what it tests.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::mesh::{Mesh, Pod, eventually};

/// How long a plane may take to write: what does not answer is given up after a while.
const PATIENCE: Duration = Duration::from_secs(25);

/// A plane's log from some moment on.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    offset: usize,
    client: String,
}

impl Log {
    /// What a pod's plane says from now on of connections from a client.
    pub(super) fn from_now(mesh: &Mesh, pod: &Pod, client: &Pod) -> anyhow::Result<Self> {
        let path = if pod.namespace == "sidecar" {
            let name = format!("{}/{}", pod.namespace, pod.name);
            mesh.directory().join("pods").join(name).join("sidecar.log")
        } else {
            mesh.log(&format!("{}-node", pod.node))
        };
        let offset = std::fs::read(&path)
            .with_context(|| path.display().to_string())?
            .len();
        let client = client.addresses[0].to_string();
        Ok(Self { path, offset, client })
    }

    /// The first line of a direction, once there is one; it must say all of this.
    pub(super) async fn says(&self, direction: &str, wanted: &[&str]) -> anyhow::Result<String> {
        let of_direction = format!("direction=\"{direction}\"");
        let of_client = format!("src.addr={}:", self.client);
        let line = eventually(PATIENCE, async || {
            let text = std::fs::read(&self.path)?;
            let text = plain(&String::from_utf8_lossy(
                text.get(self.offset..).unwrap_or_default(),
            ));
            let line = text.lines().find(|line| {
                line.contains(" access: ") && line.contains(&of_direction) && line.contains(&of_client)
            });
            let line = line.with_context(|| format!("no {direction} line in {}", self.path.display()))?;
            Ok(line.to_owned())
        })
        .await?;
        for wanted in wanted {
            ensure!(line.contains(wanted), "it does not say {wanted}: {line}");
        }
        Ok(wanted.join(" "))
    }
}

/// Without colours.
fn plain(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    })
}
