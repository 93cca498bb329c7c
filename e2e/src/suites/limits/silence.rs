//! Silence: nothing comes from a pod any more, as when its node is gone without a word. Whoever holds a
//! connection to it learns so within the keepalive's time, from the planes of both modes.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::kernel::{answered_in, established};
use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, Pod, eventually};
use crate::programs::port;
use crate::report::Report;

/// A PING goes every ten seconds, and its answer is awaited for twenty.
const NOTICED: Duration = Duration::from_secs(30);
/// For a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// Drops all that comes and goes.
const RULES: &str = "table inet silence {
  chain arrivals { type filter hook input priority 0; policy drop; }
  chain departures { type filter hook output priority 0; policy drop; }
}";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let quiet = standard.run_server("ambient", "quiet", "n2").await?;
    let ambient = Held::open(mesh, standard.client("ambient")?, &quiet).await?;
    let sidecar = Held::open(mesh, standard.client("sidecar")?, &quiet).await?;
    let silenced = Command::new("ip")
        .args(["netns", "exec", &mesh.netns(&quiet), "nft", RULES])
        .status()
        .await?;
    ensure!(silenced.success(), "nft: {silenced}");
    let begun = Instant::now();
    let (ambient, sidecar, server) = tokio::join!(
        ambient.ends(mesh, begun),
        sidecar.ends(mesh, begun),
        given_up(mesh, &quiet, begun)
    );
    report.check(
        "a silent server, the client's node proxy closes and counts",
        ambient,
    );
    report.check("a silent server, the client's sidecar closes and counts", sidecar);
    report.check("silent clients, the server's node proxy closes", server);
    Ok(())
}

/// A connection that is held, and what its client's plane has counted before.
struct Held {
    stream: TcpStream,
    client: Pod,
    closed: f64,
}

impl Held {
    async fn open(mesh: &Mesh, client: &Pod, server: &Pod) -> anyhow::Result<Self> {
        Ok(Self {
            stream: answered_in(&mesh.netns(client), server.at(port::TCP)).await?,
            client: client.clone(),
            closed: closed(mesh, client).await?,
        })
    }

    /// Its end, as the application sees it, and as its plane counts it.
    async fn ends(mut self, mesh: &Mesh, begun: Instant) -> anyhow::Result<String> {
        let reading = move || {
            self.stream.set_read_timeout(Some(NOTICED + SLACK))?;
            match self.stream.read(&mut [0]) {
                Ok(0) => Ok("closed"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok("reset"),
                Ok(_) => bail!("something came"),
                Err(error) => Err(error).context("it is still open"),
            }
        };
        let how = tokio::task::spawn_blocking(reading).await??;
        let took = begun.elapsed();
        eventually(Duration::from_secs(5), async || {
            let now = closed(mesh, &self.client).await?;
            ensure!(now > self.closed, "connections closed stay at {now}");
            Ok(())
        })
        .await?;
        Ok(format!("{how} after {} s, and counted", took.as_secs()))
    }
}

/// Connections to the silent pod that a client's plane has counted as ended.
async fn closed(mesh: &Mesh, client: &Pod) -> anyhow::Result<f64> {
    let of_quiet = [("reporter", "source"), ("destination_workload", "quiet")];
    mesh.counted(client, "istio_tcp_connections_closed_total", &of_quiet)
        .await
}

/// The kernel knows of no tunnel to the silent pod any more.
async fn given_up(mesh: &Mesh, quiet: &Pod, begun: Instant) -> anyhow::Result<String> {
    let netns = mesh.netns(quiet);
    eventually(NOTICED + SLACK, async || {
        let tunnels = established(&netns, "( sport = :15008 )").await?;
        ensure!(tunnels.is_empty(), "{} tunnels are still held", tunnels.len());
        Ok(())
    })
    .await?;
    Ok(format!("after {} s", begun.elapsed().as_secs()))
}
