//! TCP connections as the kernel lists them, and which process holds their sockets.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Context;

use super::processes::of;

#[cfg(test)]
mod tests;

/// How the kernel writes that a connection is established.
const ESTABLISHED: &str = "01";

/// One end of an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// This end.
    pub local: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
    /// The number of its socket.
    pub socket: u64,
}

/// The established connections of the network namespace that a process is in.
pub fn connections(process: u32) -> anyhow::Result<Vec<Connection>> {
    let mut found = Vec::new();
    for file in ["net/tcp", "net/tcp6"] {
        let path = of(process, file);
        let table = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        found.extend(table.lines().skip(1).filter_map(parse));
    }
    Ok(found)
}

/// The numbers of the sockets that a process holds; none if it has ended.
#[must_use]
pub fn sockets_of(process: u32) -> HashSet<u64> {
    let descriptors = std::fs::read_dir(of(process, "fd")).into_iter().flatten();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let number = |target: std::path::PathBuf| {
        let number = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        number.parse().ok()
    };
    targets.filter_map(number).collect()
}

fn parse(line: &str) -> Option<Connection> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != ESTABLISHED {
        return None;
    }
    Some(Connection {
        local: address(fields[1])?,
        remote: address(fields[2])?,
        socket: fields.get(9)?.parse().ok()?,
    })
}

/// The kernel writes addresses in words of four bytes, each as a number of this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for place in (0..words.len()).step_by(8) {
        let word = u32::from_str_radix(words.get(place..place + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}
