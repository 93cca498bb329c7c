//! A node's proxy is away for half a minute, as after a back-off of kubelet: whoever dials meanwhile queues,
//! be it at the node itself or at a plane elsewhere that waits for this one, and is served in the end.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::kernel::parent;
use crate::mesh::processes::{Part, signal};
use crate::mesh::standard::Standard;
use crate::mesh::{Pod, eventually};
use crate::programs::load::Tally;
use crate::programs::port;
use crate::report::Report;

/// For how long it is away.
const AWAY: Duration = Duration::from_secs(30);
/// Attempts of each load at 20 a second, of which most are made while it is away.
const ATTEMPTS: u64 = 200;

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let (sidecar, ambient) = (standard.client("sidecar")?, standard.client("ambient")?);
    let (near, far) = (
        standard.server("ambient", "n1")?,
        standard.server("ambient", "n2")?,
    );
    let (tallies, away) = tokio::join!(
        async { tokio::join!(load(standard, sidecar, near), load(standard, ambient, far)) },
        absence(standard)
    );
    report.check("the node proxy is away for half a minute", away);
    for (whose, tally) in [
        ("of a plane that waits for it", tallies.0),
        ("of a client of its own", tallies.1),
    ] {
        let result = tally.and_then(|tally| waited(&tally));
        report.check(
            format!("the node proxy is away for half a minute, attempts {whose}"),
            result,
        );
    }
    Ok(())
}

async fn load(standard: &Standard, from: &Pod, to: &Pod) -> anyhow::Result<Tally> {
    let target = to.at(port::HTTP).to_string();
    let load = [
        "load",
        "--target",
        &target,
        "--rate",
        "20",
        "--seconds",
        "12",
        "--limit",
        "60",
    ];
    standard.mesh.program_in(from, &load).await
}

/// Both its processes end; nobody starts them again until the time is over.
async fn absence(standard: &Standard) -> anyhow::Result<String> {
    // Once the load is under way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let supervisors = standard.mesh.processes_of(Part::Supervisor, "n1")?;
    let supervisor = supervisors.first().context("no supervisor runs on n1")?;
    let halted = Halted::new(parent(*supervisor)?)?;
    for part in [Part::Supervisor, Part::Worker] {
        for process in standard.mesh.processes_of(part, "n1")? {
            // Workers may end with their supervisor.
            let _ = signal(process, Signal::KILL);
        }
    }
    let begun = Instant::now();
    tokio::time::sleep(AWAY).await;
    drop(halted);
    eventually(Duration::from_secs(30), async || {
        let workers = standard.mesh.processes_of(Part::Worker, "n1")?;
        ensure!(!workers.is_empty(), "no worker yet");
        Ok(format!("it is back after {:.1} s", begun.elapsed().as_secs_f64()))
    })
    .await
}

/// A process that does nothing for a while.
struct Halted(u32);

impl Halted {
    fn new(process: u32) -> anyhow::Result<Self> {
        signal(process, Signal::STOP)?;
        Ok(Self(process))
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // Fails only where there is no such process any more.
        let _ = signal(self.0, Signal::CONT);
    }
}

/// All are served; what was in flight may have ended with it, as everywhere else: by a reset, or, where a sidecar reads
/// HTTP, by its 502.
fn waited(tally: &Tally) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= ATTEMPTS,
        "only {} attempts were made",
        tally.attempted
    );
    ensure!(
        tally.refused == 0 && tally.late == 0 && tally.lost() <= 2,
        "{tally}"
    );
    ensure!(
        Duration::from_millis(tally.worst_milliseconds) >= AWAY - Duration::from_secs(5),
        "nobody had to wait: {tally}"
    );
    Ok(tally.to_string())
}
