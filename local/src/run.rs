//! `local run` and `local exec`: the program is this process's child, with its terminal.

use std::process::Stdio;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use super::enter::Enter;
use super::mesh::Mesh;
use super::protocol::{Conversation, PodRequest, Request, Response};

/// `local run`: the exit code of the program.
pub async fn run(mesh: &Mesh, request: PodRequest) -> anyhow::Result<i32> {
    let mut conversation = Conversation::with_daemon(mesh).await?;
    let command = request.command.clone();
    let Response::Enter { enter } = conversation.ask(&Request::Run(Box::new(request))).await? else {
        return Ok(0);
    };
    let mut child = spawn(&enter, &command)?;
    conversation
        .send(&Request::Started {
            pid: child.id().unwrap_or_default(),
        })
        .await?;
    let code = tokio::select! {
        code = attend(&mut child) => code?,
        // The pod is ended by others, or the daemon has gone: in both cases the program with it.
        answer = conversation.receive::<Response>() => {
            child.kill().await?;
            answer?;
            return Ok(143);
        }
    };
    conversation.ask(&Request::Exited { code }).await?;
    Ok(code)
}

/// `local exec`: the exit code of the command.
pub async fn exec(mesh: &Mesh, namespace: String, pod: String, command: &[String]) -> anyhow::Result<i32> {
    let question = Request::Enter { namespace, pod };
    let answer = Conversation::with_daemon(mesh).await?.ask(&question).await?;
    let Response::Enter { enter } = answer else {
        anyhow::bail!("the daemon answered something else")
    };
    attend(&mut spawn(&enter, command)?).await
}

/// What a command inside a pod writes, and its exit code.
pub async fn output(
    mesh: &Mesh,
    namespace: &str,
    pod: &str,
    command: &[String],
) -> anyhow::Result<std::process::Output> {
    let question = Request::Enter {
        namespace: namespace.into(),
        pod: pod.into(),
    };
    let answer = Conversation::with_daemon(mesh).await?.ask(&question).await?;
    let Response::Enter { enter } = answer else {
        anyhow::bail!("the daemon answered something else")
    };
    let mut command = tokio::process::Command::from(enter.command(command)?);
    Ok(command.stdin(Stdio::null()).kill_on_drop(true).output().await?)
}

fn spawn(enter: &Enter, command: &[String]) -> anyhow::Result<Child> {
    let mut command = tokio::process::Command::from(enter.command(command)?);
    command.kill_on_drop(true).spawn().context("starting the program")
}

/// Waits for a child that has the terminal, passing on what this process is asked to do.
async fn attend(child: &mut Child) -> anyhow::Result<i32> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut interrupts = 0;
    loop {
        let ask = tokio::select! {
            exit = child.wait() => return Ok(code(exit?)),
            _ = terminate.recv() => Signal::TERM,
            _ = interrupt.recv() => {
                interrupts += 1;
                match interrupts {
                    // The terminal has sent it to the child too, which may have its own use for it.
                    1 => continue,
                    2 => Signal::TERM,
                    _ => Signal::KILL,
                }
            }
        };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, ask)?;
        }
    }
}

/// The exit code as a shell gives it.
fn code(exit: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    exit.code()
        .or_else(|| exit.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}
