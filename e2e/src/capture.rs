//! The witness of encryption: a packet capture in a network namespace, searched for what the test programs
//! say. Reads packets only; must never be asked what the mesh believes it did.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use crate::programs::MARKER;

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    messages: BufReader<ChildStderr>,
    directory: TempDir,
}

/// What was captured.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    /// TCP packets with payload, of any port.
    pub packets: usize,
    /// Of those, to or from the tunnel's ports.
    pub tunnelled: usize,
    /// Occurrences of the marker in the clear.
    pub plaintext: usize,
}

impl Capture {
    /// Begins capturing on every interface of a named network namespace.
    pub async fn start(netns: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut child = Command::new("ip")
            .args([
                "netns", "exec", netns, "tcpdump", "-i", "any", "-n", "-U", "-s", "0",
            ])
            .args(["-B", "16384", "--immediate-mode", "-Z", "root", "-w"])
            .arg(directory.path().join("packets"))
            .arg("tcp")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting tcpdump")?;
        let stderr = child.stderr.take().context("tcpdump's messages")?;
        let mut messages = BufReader::new(stderr);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            ensure!(
                messages.read_line(&mut line).await? > 0,
                "tcpdump ended before it listened"
            );
        }
        Ok(Self {
            child,
            messages,
            directory,
        })
    }

    /// Ends the capture and searches it.
    pub async fn stop(mut self) -> anyhow::Result<Captured> {
        let file = self.end().await?;
        let content = tokio::fs::read(&file).await?;
        Ok(Captured {
            packets: count(&file, "tcp and greater 60").await?,
            tunnelled: count(&file, "tcp port 15008 or tcp port 15108").await?,
            plaintext: occurrences(&content, MARKER.as_bytes()),
        })
    }

    /// Ends the capture; how often it has each of these words in the clear.
    pub async fn stop_and_find(mut self, words: &[&str]) -> anyhow::Result<Vec<usize>> {
        let content = tokio::fs::read(self.end().await?).await?;
        let found = words.iter().map(|word| occurrences(&content, word.as_bytes()));
        Ok(found.collect())
    }

    /// Ends the capture: the file with what was captured.
    async fn end(&mut self) -> anyhow::Result<PathBuf> {
        let process = self.child.id().context("tcpdump has ended by itself")?;
        let process = rustix::process::Pid::from_raw(process.try_into()?).context("tcpdump's process")?;
        rustix::process::kill_process(process, rustix::process::Signal::INT)?;
        let mut line = String::new();
        while self.messages.read_line(&mut line).await? > 0 {}
        self.child.wait().await?;
        Ok(self.directory.path().join("packets"))
    }
}

async fn count(file: &Path, filter: &str) -> anyhow::Result<usize> {
    let output = Command::new("tcpdump")
        .arg("-nr")
        .arg(file)
        .arg(filter)
        .output()
        .await?;
    Ok(output.stdout.iter().filter(|byte| **byte == b'\n').count())
}

fn occurrences(content: &[u8], wanted: &[u8]) -> usize {
    content
        .windows(wanted.len())
        .filter(|window| *window == wanted)
        .count()
}
