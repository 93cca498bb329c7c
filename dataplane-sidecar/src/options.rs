//! What the user says. Typed; nothing is read or opened here.

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use trefoil_dataplane_process as process;

#[cfg(test)]
mod tests;

/// The sidecar of one workload.
#[derive(Debug, Parser)]
#[command(name = "trefoil-sidecar", version, about)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the workload until told to end.
    Run(Box<Run>),
    /// Ask the admin interface of the running sidecar.
    Admin(process::Question),
}

/// What a running sidecar needs to know.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Run {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) process: process::Options,
    /// Refuse connections to what the mesh does not know, whatever the mesh's settings say.
    #[arg(long, env = "TREFOIL_REGISTRY_ONLY")]
    pub(crate) registry_only: bool,
}

impl Options {
    /// Threads of the runtime.
    pub(crate) fn worker_threads(&self) -> usize {
        match &self.command {
            Command::Run(run) => run.process.worker_threads.max(1),
            Command::Admin(_) => 1,
        }
    }
}
