//! Readers that stall, as many as can be: what the planes of both ends hold for them is memory, measured from
//! outside, and bounded by what the documentation says of a pod's budget.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::kernel::inside;
use crate::mesh::Mesh;
use crate::mesh::processes::Part;
use crate::mesh::standard::Standard;
use crate::report::Report;

/// Connections whose servers never read.
const STREAMS: usize = 256;
/// Where the server that never reads listens.
const PORT: u16 = 9100;
/// A pod's budget of bytes in flight (docs/architecture.md).
const BUDGET: u64 = 64 << 20;
/// Beside the bytes in flight: what a connection costs that is open, for so many, and what the allocator keeps.
const BESIDE: u64 = 16 << 20;
/// Nothing more is taken once nothing was for so long.
const BRIM: Duration = Duration::from_secs(2);

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let (client, server) = (standard.client("ambient")?, standard.server("ambient", "n2")?);
    let before = (resident(mesh, "n1")?, resident(mesh, "n2")?);
    let _listener = inside(&mesh.netns(server), || Ok(TcpListener::bind(("0.0.0.0", PORT))?)).await?;
    let to = server.at(PORT);
    let (streams, sent) = inside(&mesh.netns(client), move || fill(to)).await?;
    for (node, end, before) in [("n1", "client", before.0), ("n2", "server", before.1)] {
        let grown = resident(mesh, node)?.saturating_sub(before);
        report.check(
            format!("{STREAMS} readers that stall, the worker of the {end}'s node"),
            bounded(grown, sent),
        );
    }
    drop(streams);
    Ok(())
}

fn bounded(grown: u64, sent: u64) -> anyhow::Result<String> {
    let (mib, bound) = (1 << 20, BUDGET + BESIDE);
    // What was not pushed to the brim would prove nothing.
    ensure!(sent > BUDGET, "only {} MiB were sent", sent / mib);
    ensure!(
        grown <= bound,
        "resident memory grew by {} MiB, more than {}",
        grown / mib,
        bound / mib
    );
    Ok(format!(
        "resident memory grew by {} MiB of at most {}, with {} MiB sent and not read",
        grown / mib,
        bound / mib,
        sent / mib
    ))
}

/// Writes to all until none takes more; how many bytes were taken.
fn fill(to: SocketAddr) -> anyhow::Result<(Vec<TcpStream>, u64)> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let stream = TcpStream::connect(to).context("connecting")?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
    }
    let chunk = vec![7; 64 * 1024];
    let (mut sent, mut last) = (0, Instant::now());
    while last.elapsed() < BRIM {
        for stream in &mut streams {
            match stream.write(&chunk) {
                Ok(taken) => {
                    sent += u64::try_from(taken)?;
                    last = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("a connection ended"),
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((streams, sent))
}

/// Resident bytes of a node's workers.
fn resident(mesh: &Mesh, node: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for process in mesh.processes_of(Part::Worker, node)? {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
        bytes += kib.parse::<u64>()? * 1024;
    }
    Ok(bytes)
}
