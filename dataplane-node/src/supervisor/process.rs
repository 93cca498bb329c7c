//! Starting a worker process: a new program image with nothing but its channel. It takes its privileges
//! off itself before it does anything else (`crate::worker::privileges`).

use std::io;
use std::process::Stdio;

use tokio::process::{Child, Command};
use trefoil_packets::PacketSocket;

use super::worker::Worker;
use crate::flags::RunFlags;

/// Starts a process for a worker. Standard input is its channel; its environment is empty.
///
/// To be called from the main thread only: the kernel ends the child when the thread that made it ends.
pub(crate) fn start(flags: &RunFlags, worker: &Worker) -> io::Result<(Child, PacketSocket)> {
    let (ours, theirs) = trefoil_packets::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg("worker")
        .args(["--user", &worker.user.to_string()])
        .args(["--scope", &worker.scope.to_string()])
        .args(["--threads", &flags.worker_threads.to_string()])
        .args(["--log-level", &flags.log.log_level])
        .args(["--log-format", flags.log.log_format.as_str()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        // Ctrl-C on a terminal is for the supervisor, which drains them.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, PacketSocket::new(ours)?))
}

/// Lets this process and its workers have as many descriptors as the machine allows: a connection costs
/// two or more.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(())
}
