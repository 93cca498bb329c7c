//! `trefoil-sidecar`: the data plane of one workload, in its own network namespace, with its own identity.
//! Parses flags, builds the parts, runs until a signal, drains. It never acts for anybody else.

mod options;
mod placement;
mod requests;
mod run;

use clap::Parser;

use options::{Command, Options};
use trefoil_dataplane_process::memory;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    memory::keep_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.worker_threads())
        .enable_all()
        .build()?;
    match options.command {
        Command::Run(run) => runtime.block_on(run::run(&run)),
        Command::Admin(admin) => Ok(runtime.block_on(admin.ask())?),
    }
}
