//! `trefoilctl`: looks at a mesh, changes it, and makes one on this machine.

mod bugreport;
mod check;
mod config;
mod connect;
mod demo;
mod descriptors;
mod flags;
mod kinds;
mod local;
mod look;
mod object;
mod output;
mod planes;
mod proxies;
mod status;
mod uninstall;
mod waypoint;
mod why;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use flags::{Flags, Subcommand};
use local::LocalCommand;
use trefoil_local::enter::Enter;
use trefoil_local::mesh::Mesh;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match &flags.command {
        Subcommand::Local {
            command: LocalCommand::Enter(enter),
        } => return report(enter_namespace(enter)),
        Subcommand::Local {
            command: LocalCommand::Up(up),
        } if up.detached => descriptors::close_inherited(),
        _ => {}
    }
    report(run(flags))
}

/// Becomes another program: before any thread exists.
fn enter_namespace(flags: &local::EnterFlags) -> anyhow::Result<i32> {
    descriptors::close_inherited();
    let enter: Enter = serde_json::from_str(&flags.spec)?;
    Err(enter.exec(&flags.command))
}

fn run(flags: Flags) -> anyhow::Result<i32> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(&flags.log_level))
        .init();
    anyhow::ensure!(
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .is_ok(),
        "the TLS provider was installed twice"
    );
    // One thread: what dies with its parent dies with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(dispatch(flags));
    runtime.shutdown_background();
    code
}

fn report(result: anyhow::Result<i32>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("trefoilctl: {}", trefoil_local::causes::causes(&error));
            ExitCode::from(1)
        }
    }
}

async fn dispatch(flags: Flags) -> anyhow::Result<i32> {
    let mesh = Mesh::new(&flags.mesh)?;
    let kubeconfig = connect::kubeconfig_path(flags.kubeconfig.as_deref(), &mesh);
    let client = async || connect::client(kubeconfig.as_deref()).await;
    let planes = async || {
        let local = kubeconfig.as_deref() == Some(mesh.kubeconfig().as_path());
        anyhow::Ok(planes::Planes::new(client().await?, local.then(|| mesh.clone())))
    };
    match flags.command {
        Subcommand::Status => {
            let status = status::gather(&planes().await?).await?;
            return Ok(i32::from(!status::print(&status, flags.output)?));
        }
        Subcommand::Why { client, server } => {
            let answer = why::why(&planes().await?, &client, &server).await?;
            why::print(&answer, flags.output)?;
            return Ok(i32::from(!answer.well));
        }
        Subcommand::ProxyStatus { proxy } => {
            let well = proxies::run(&planes().await?, proxy.as_deref(), flags.output).await?;
            return Ok(i32::from(!well));
        }
        Subcommand::Check { pre: true } => {
            if on_machine(kubeconfig.as_deref(), &mesh) {
                return check::pre::machine(flags.output).await;
            }
            return check::pre::cluster(&client().await?, flags.output).await;
        }
        Subcommand::Check { pre: false } => return check::run(&planes().await?, flags.output).await,
        Subcommand::Bugreport(options) => bugreport::run(&planes().await?, &options, flags.output).await?,
        Subcommand::Config { pod } => config::print(&planes().await?, &pod, flags.output).await?,
        Subcommand::Get(which) => object::get(&client().await?, &which, flags.output).await?,
        Subcommand::Delete(which) => object::delete(&client().await?, &which, flags.output).await?,
        Subcommand::Apply { file, namespace } => {
            let client = client().await?;
            let result = object::apply::apply(&client, &file, namespace.as_deref()).await;
            output::print_done(&result.done, flags.output)?;
            result.failure?;
        }
        Subcommand::Label {
            kind,
            name,
            labels,
            namespace,
            ..
        } => {
            let client = client().await?;
            let done = object::label(&client, &kind, &name, namespace.as_deref(), &labels).await?;
            output::print_done(&[done], flags.output)?;
        }
        Subcommand::Waypoint { command } => {
            return waypoint::run(&client().await?, command, flags.output).await;
        }
        Subcommand::Completion { shell } => {
            let mut command = <Flags as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "trefoilctl", &mut script);
            match std::io::Write::write_all(&mut std::io::stdout(), &script) {
                // Whoever read it has seen enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        Subcommand::Uninstall { .. } => {
            if on_machine(kubeconfig.as_deref(), &mesh) {
                return uninstall::machine(&mesh, flags.output);
            }
            return uninstall::cluster(&client().await?, flags.output).await;
        }
        Subcommand::Demo => return demo::run(demo_mesh(&mesh)?).await,
        Subcommand::DemoApp { app } => return trefoil_demo_programs::run(app).await,
        Subcommand::Local { command } => return local(mesh, flags.output, command).await,
    }
    Ok(0)
}

/// Whether this machine is meant: a mesh on it that is not there leaves no kubeconfig to ask by.
fn on_machine(kubeconfig: Option<&Path>, mesh: &Mesh) -> bool {
    match kubeconfig {
        Some(path) => path == mesh.kubeconfig(),
        None => !connect::is_inferred(),
    }
}

/// A mesh of the demonstration's own, beside the user's.
fn demo_mesh(mesh: &Mesh) -> anyhow::Result<Mesh> {
    Mesh::new(&format!("{}-demo", mesh.name))
}

async fn local(mesh: Mesh, format: output::Format, command: LocalCommand) -> anyhow::Result<i32> {
    use local::command as commands;
    use trefoil_local::{down, run};
    match command {
        LocalCommand::Up(flags) => commands::up(mesh, flags, format).await?,
        LocalCommand::Down => {
            let done = if down::down(&mesh).await? {
                "removed"
            } else {
                "was not there"
            };
            output::print_done(&[output::Done::new(format!("mesh/{}", mesh.name), done)], format)?;
        }
        LocalCommand::Run(flags) => return run::run(&mesh, (*flags).request()).await,
        LocalCommand::Exec { pod, command } => {
            let (namespace, pod) = local::pod_name(&pod)?;
            return run::exec(&mesh, namespace, pod, &command).await;
        }
        LocalCommand::Demo => return demo::run(demo_mesh(&mesh)?).await,
        LocalCommand::Status => commands::status(&mesh, format).await?,
        LocalCommand::Delete { pods } => commands::delete(&mesh, &pods, format).await?,
        LocalCommand::Logs { of, sidecar } => commands::logs(&mesh, of.as_deref(), sidecar)?,
        LocalCommand::Namespace { name, mode } => commands::namespace(&mesh, &name, &mode, format).await?,
        LocalCommand::Enter(_) => anyhow::bail!("namespaces are entered before anything else is done"),
    }
    Ok(0)
}
