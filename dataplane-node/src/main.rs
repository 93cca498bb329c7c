//! The node proxy's binary: flags in, exit code out.

use clap::Parser;
use trefoil_dataplane_process::admin::{Format, LogLevel, ask};
use trefoil_node::flags::{AdminFlags, Command, Flags, LogFormat, RunFlags};
use trefoil_node::{supervisor, worker};

fn main() -> anyhow::Result<()> {
    match Flags::parse().command {
        // Before anything that could start a thread.
        Command::Worker(flags) => Ok(worker::run(&flags)?),
        Command::Run(flags) => run(*flags),
        Command::Admin(flags) => admin(&flags),
    }
}

/// One thread: the supervisor moves no application bytes, and the kernel ties its workers' lives to the
/// thread that starts them.
fn run(flags: RunFlags) -> anyhow::Result<()> {
    let format = match flags.log.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let level = LogLevel::init(&flags.log.log_level, format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(supervisor::run(flags, level));
    runtime.shutdown_background();
    Ok(ended?)
}

fn admin(flags: &AdminFlags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let method = match (&flags.method, flags.question.as_str(), &flags.value) {
        (Some(method), _, _) => method,
        (None, "drain", _) => "POST",
        (None, _, Some(_)) => "PUT",
        (None, _, None) => "GET",
    };
    let path = format!("/{}", flags.question.trim_start_matches('/'));
    let value = flags.value.clone().unwrap_or_default();
    let answer = runtime.block_on(ask(&flags.admin_socket, method, &path, value))?;
    println!("{}", String::from_utf8_lossy(&answer.body));
    anyhow::ensure!(answer.status < 400, "the node proxy answered {}", answer.status);
    Ok(())
}
