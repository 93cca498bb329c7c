//! Whether anything listens on ports of a network namespace, as the kernel says.

use std::path::Path;
use std::time::Duration;

use nlink::netlink::namespace::Netns;

#[cfg(test)]
mod tests;

/// The state of listening sockets in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Waits until something listens on every port of `ports`.
pub(crate) async fn wait(netns: &Path, ports: &[u16]) {
    loop {
        let listening = Netns::from_path(netns)
            .and_then(|netns| netns.run(listening))
            .unwrap_or_default();
        if ports.iter().all(|port| listening.contains(port)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The ports that are listened on in the calling thread's namespace.
fn listening() -> Vec<u16> {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| parse(&table))
        .collect()
}

/// The listening ports in a table of the kernel's.
fn parse(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next()?;
        let state = columns.nth(1)?;
        let (_, port) = local.rsplit_once(':')?;
        (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}
