//! Processes of the mesh: started, watched, started again with back-off, stopped. It knows nothing of what
//! they do.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::enter::Enter;

/// How long a process may take to end once asked.
const STOP: Duration = Duration::from_secs(4);
/// The first wait before a process is started again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A process that ran for this long is taken to be well.
const WELL: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// For people, and the name of its log.
    pub(crate) name: String,
    /// Where.
    pub(crate) enter: Enter,
    /// What.
    pub(crate) command: Vec<String>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// What a process has come to, for `local status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its name.
    pub name: String,
    /// Its id while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last.
    pub last_exit: Option<String>,
}

/// A process that is started again whenever it ends, until it is stopped.
#[derive(Debug)]
pub(crate) struct Supervised {
    status: Arc<Mutex<ProcessStatus>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Program {
    /// Starts it, its output appended to its log.
    pub(crate) fn start(&self) -> anyhow::Result<Child> {
        let log = open_log(&self.log)?;
        let mut command = tokio::process::Command::from(self.enter.command(&self.command)?);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.process_group(0).env("NO_COLOR", "1");
        command.spawn().with_context(|| format!("starting {}", self.name))
    }
}

fn open_log(path: &PathBuf) -> anyhow::Result<OwnedFd> {
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    Ok(opened
        .with_context(|| format!("opening {}", path.display()))?
        .into())
}

impl Supervised {
    /// Starts a program and keeps it running.
    pub(crate) fn start(program: Program) -> anyhow::Result<Self> {
        let status = ProcessStatus {
            name: program.name.clone(),
            ..ProcessStatus::default()
        };
        let status = Arc::new(Mutex::new(status));
        let stop = CancellationToken::new();
        let child = program.start()?;
        let task = tokio::spawn(keep_running(program, child, status.clone(), stop.clone()));
        Ok(Self { status, stop, task })
    }

    /// What it has come to.
    pub(crate) fn status(&self) -> ProcessStatus {
        locked(&self.status).clone()
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // An error is a panic of the task, which must not keep others from being stopped.
        let _ = self.task.await;
    }
}

fn locked(status: &Mutex<ProcessStatus>) -> std::sync::MutexGuard<'_, ProcessStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_running(
    program: Program,
    mut child: Child,
    status: Arc<Mutex<ProcessStatus>>,
    stop: CancellationToken,
) {
    let mut wait = FIRST_WAIT;
    loop {
        let started = Instant::now();
        locked(&status).pid = child.id();
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = stop.cancelled() => return end(&mut child).await,
        };
        let exit = ended.map_or_else(|error| error.to_string(), |exit| exit.to_string());
        tracing::warn!(process = program.name, exit, "ended");
        locked(&status).pid = None;
        locked(&status).last_exit = Some(exit);
        if started.elapsed() > WELL {
            wait = FIRST_WAIT;
        }
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
            locked(&status).restarts += 1;
            match program.start() {
                Ok(child) => break child,
                Err(error) => tracing::error!(process = program.name, "{error:#}"),
            }
        };
    }
}

/// Asks a process to end, and ends it where it does not.
pub(crate) async fn end(child: &mut Child) {
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
        return;
    };
    // It may have ended by itself in between.
    let _ = kill_process(pid, Signal::TERM);
    if tokio::time::timeout(STOP, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
