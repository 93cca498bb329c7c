//! What the kernel says of a network namespace and of processes: a witness that asks no part of the mesh.

mod connections;
mod processes;

pub use connections::{Connection, connections, sockets_of};
pub use processes::{control_group, parent, program, running};

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::programs::MARKER;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// An established connection, seen from one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// This end's address and port, as the kernel writes them.
    pub local: String,
    /// The other end's.
    pub peer: String,
}

/// Established connections of a network namespace, of those that `ss` is asked for, such as
/// `( sport = :15008 )`.
pub async fn established(netns: &str, filter: &str) -> anyhow::Result<Vec<Established>> {
    let listed = ss(netns, "established", filter).await?;
    listed.lines().map(read).collect()
}

/// Listeners of a port in a network namespace.
pub async fn listeners(netns: &str, port: u16) -> anyhow::Result<String> {
    ss(netns, "listening", &format!("( sport = :{port} )")).await
}

/// Does something from within a network namespace: sockets that are made there stay there.
pub async fn inside<Made: Send + 'static>(
    netns: &str,
    make: impl FnOnce() -> anyhow::Result<Made> + Send + 'static,
) -> anyhow::Result<Made> {
    let path = Path::new("/run/netns").join(netns);
    // A thread of its own, which ends in that namespace.
    let thread = std::thread::spawn(move || {
        let namespace = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        make()
    });
    let joined = tokio::task::spawn_blocking(|| thread.join()).await?;
    joined.map_err(|_| anyhow::anyhow!("what was done in {netns} panicked"))?
}

/// A connection from within a network namespace, over which the test server's port for lines has answered.
pub async fn answered_in(netns: &str, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let connecting = move || {
        let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(format!("{MARKER}\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        ensure!(line.contains(MARKER), "{line:?} was answered");
        Ok(stream)
    };
    inside(netns, connecting).await
}

fn read(line: &str) -> anyhow::Result<Established> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, local, peer, ..] = words[..] else {
        anyhow::bail!("ss says {line:?}")
    };
    ensure!(local.contains(':') && peer.contains(':'), "ss says {line:?}");
    Ok(Established {
        local: local.into(),
        peer: peer.into(),
    })
}

async fn ss(netns: &str, state: &str, filter: &str) -> anyhow::Result<String> {
    let output = tokio::process::Command::new("ip")
        .args(["netns", "exec", netns, "ss", "-HtneO", "state", state, filter])
        .output()
        .await?;
    ensure!(output.status.success(), "ss: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests;
