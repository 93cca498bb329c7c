//! What the user says. Typed; nothing is read or opened here.

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use trefoil_dataplane_process as process;

#[cfg(test)]
mod tests;

/// A waypoint of a namespace or of services.
#[derive(Debug, Parser)]
#[command(name = "trefoil-waypoint", version, about)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until told to end.
    Run(Box<Run>),
    /// Ask the admin interface of the running waypoint.
    Admin(process::Question),
}

/// What a running waypoint needs to know.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Run {
    /// Of every plane.
    #[command(flatten)]
    #[serde(flatten)]
    pub process: process::Options,
    /// Name of the Gateway that this is a waypoint of, for people: which services and workloads it serves, the
    /// control plane says.
    #[arg(long, env = "TREFOIL_GATEWAY")]
    pub gateway: String,
}

impl Options {
    /// Threads of the runtime.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        match &self.command {
            Command::Run(run) => run.process.worker_threads.max(1),
            Command::Admin(_) => 1,
        }
    }
}
