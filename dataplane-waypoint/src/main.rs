//! `trefoil-waypoint`: the data plane between clients and what a Gateway serves, with its own identity. Parses
//! flags, builds the parts, runs until a signal, drains.

use clap::Parser;
use trefoil_dataplane_process::memory;
use trefoil_waypoint::options::{Command, Options};
use trefoil_waypoint::run;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    memory::keep_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.worker_threads())
        .enable_all()
        .build()?;
    match options.command {
        Command::Run(run) => runtime.block_on(run::run(&run)),
        Command::Admin(question) => Ok(runtime.block_on(question.ask())?),
    }
}
