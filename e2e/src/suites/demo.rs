//! Demo: the demonstration, run as a user runs it. It shows what it promises and says so with its exit code;
//! it fails when what it shows fails; and however it ends, nothing of it is left.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::mesh::Mesh;
use crate::mesh::processes::signal;
use crate::report::Report;

mod leftovers;
mod rows;

use leftovers::Trace;

/// The mesh that the demonstration makes beside the one that is named to it.
pub(super) const MESH: &str = "e2edemo-demo";
/// How long the whole may take.
const WHOLE: Duration = Duration::from_secs(60);
/// How long an interrupted one may take to remove everything.
const PROMPT: Duration = Duration::from_secs(10);
/// The line after which a namespace changes plane under load.
const LOAD: &str = "under load";
/// The line after which a front end is visited whose API is behind a waypoint.
const SHOP: &str = "behind a waypoint";

/// Where it is interrupted: what is awaited, after the line that mentions this.
const INTERRUPTIONS: [(&str, &str, Awaited); 4] = [
    (
        "before there is a mesh",
        "A mesh on this machine",
        Awaited::Nothing,
    ),
    (
        "while its nodes are made",
        "A mesh on this machine",
        Awaited::Namespace("n2"),
    ),
    (
        "while its pods are made",
        "up in",
        Awaited::Namespace("sidecar-web"),
    ),
    ("under load", LOAD, Awaited::Program("load")),
];

/// What is awaited before it is interrupted.
#[derive(Clone, Copy)]
enum Awaited {
    Nothing,
    /// A network namespace of the mesh.
    Namespace(&'static str),
    /// A part of the demonstration's programs, in a pod.
    Program(&'static str),
}

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    // Removes what an earlier run left, and what this one should not have.
    let mesh = Mesh::of_another(MESH)?;
    mesh.local(&["down"]).await?;
    whole(&mesh, report).await?;
    for (name, line, awaited) in INTERRUPTIONS {
        let before = leftovers::host().await?;
        let interrupted = interrupted(&mesh, line, awaited).await;
        let trace = report_of(report, &format!("interrupted {name}"), interrupted);
        let gone = leftovers::none(MESH, &trace, &before).await;
        report.check(format!("interrupted {name}, nothing is left"), gone);
    }
    for (name, line, program, victim) in [
        ("a sidecar that ends under load", LOAD, "load", ("sidecar", "web")),
        ("a waypoint that ends", SHOP, "visit", ("shop", "waypoint-1")),
    ] {
        let before = leftovers::host().await?;
        let broken = broken(&mesh, line, program, victim).await;
        let trace = report_of(report, &format!("{name} fails it"), broken);
        let gone = leftovers::none(MESH, &trace, &before).await;
        report.check(format!("{name} fails it, nothing is left"), gone);
    }
    Ok(())
}

/// Counts what was seen; the processes that there were.
fn report_of(report: &mut Report, name: &str, result: anyhow::Result<(String, Trace)>) -> Trace {
    match result {
        Ok((seen, trace)) => {
            report.check(name, Ok(seen));
            trace
        }
        Err(error) => {
            report.check(name, Err::<&str, _>(error));
            Trace::default()
        }
    }
}

/// Undisturbed.
async fn whole(mesh: &Mesh, report: &mut Report) -> anyhow::Result<()> {
    let before = leftovers::host().await?;
    let begun = Instant::now();
    let mut running = Running::start(mesh)?;
    running.until(LOAD).await?;
    let trace = Trace::of(MESH)?;
    let (status, said) = running.end(WHOLE).await?;
    let took = begun.elapsed();
    let well = || {
        ensure!(status.success(), "{status}:\n{said}");
        ensure!(took < WHOLE, "it took {} s", took.as_secs());
        Ok(format!("exit code 0 after {} s", took.as_secs()))
    };
    report.check("it runs to its end", well());
    rows::check(report, &said);
    let gone = leftovers::none(MESH, &trace, &before).await;
    report.check("it ended, nothing is left", gone);
    Ok(())
}

/// Ctrl-C.
async fn interrupted(mesh: &Mesh, line: &str, awaited: Awaited) -> anyhow::Result<(String, Trace)> {
    let mut running = Running::start(mesh)?;
    running.until(line).await?;
    wait_for(awaited).await?;
    let trace = Trace::of(MESH)?;
    let begun = Instant::now();
    running.interrupt()?;
    let (status, _) = running.end(PROMPT).await?;
    ensure!(status.code() == Some(130), "{status}");
    let seen = format!("exit code 130 after {} ms", begun.elapsed().as_millis());
    Ok((seen, trace))
}

/// What carries the connections of one of its programs ends while it is shown.
async fn broken(
    mesh: &Mesh,
    line: &str,
    program: &'static str,
    (namespace, pod): (&str, &str),
) -> anyhow::Result<(String, Trace)> {
    let mut running = Running::start(mesh)?;
    running.until(line).await?;
    wait_for(Awaited::Program(program)).await?;
    let trace = Trace::of(MESH)?;
    // The program's first request, and with it a connection that is to stay, is on its way by then.
    let carrier = mesh.pod(namespace, pod).await?.sidecar;
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(
        carrier.with_context(|| format!("{pod} has no proxy"))?,
        Signal::KILL,
    )?;
    let (status, said) = running.end(WHOLE).await?;
    ensure!(status.code() == Some(1), "{status}:\n{said}");
    Ok(("exit code 1".into(), trace))
}

async fn wait_for(awaited: Awaited) -> anyhow::Result<()> {
    let there = || match awaited {
        Awaited::Nothing => Ok(true),
        Awaited::Namespace(name) => anyhow::Ok(
            std::path::Path::new("/run/netns")
                .join(format!("{MESH}-{name}"))
                .exists(),
        ),
        Awaited::Program(part) => leftovers::program_runs(MESH, &["demo-app", part]),
    };
    let waiting = async {
        while !there()? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .context("it does not get as far")?
}

/// The demonstration, in a process group of its own as a shell gives it.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: String,
}

impl Running {
    fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let (named, _) = MESH.rsplit_once('-').context("the mesh's name")?;
        let mut child = Command::new(mesh.binaries().join("trefoilctl"))
            .args(["--mesh", named, "demo"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the demonstration")?;
        let stdout = child.stdout.take().context("what it says")?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout).lines(),
            said: String::new(),
        })
    }

    /// Reads until a line mentions this.
    async fn until(&mut self, wanted: &str) -> anyhow::Result<()> {
        let reading = async {
            while let Some(line) = self.lines.next_line().await? {
                self.said.push_str(&line);
                self.said.push('\n');
                if line.contains(wanted) {
                    return Ok(());
                }
            }
            anyhow::bail!("it ended before it said {wanted:?}:\n{}", self.said)
        };
        tokio::time::timeout(WHOLE, reading)
            .await
            .context("it does not get on")?
    }

    /// As the terminal does: the group, not the one process.
    fn interrupt(&self) -> anyhow::Result<()> {
        let group = self.child.id().context("it has ended by itself")?;
        let group = Pid::from_raw(group.cast_signed()).context("its process group")?;
        Ok(kill_process_group(group, Signal::INT)?)
    }

    /// Its exit status, and all that it said.
    async fn end(mut self, limit: Duration) -> anyhow::Result<(ExitStatus, String)> {
        let ending = async {
            while let Some(line) = self.lines.next_line().await? {
                self.said.push_str(&line);
                self.said.push('\n');
            }
            anyhow::Ok(self.child.wait().await?)
        };
        let status = tokio::time::timeout(limit, ending).await;
        let status = status.with_context(|| format!("not over after {} s", limit.as_secs()))??;
        Ok((status, self.said))
    }
}
