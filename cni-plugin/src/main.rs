//! `trefoil-cni`: the CNI plugin when a container runtime calls it, else the node agent and what belongs to it.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use trefoil_cni::plugin::{self, PluginError, Request};
use trefoil_cni::{agent, call, log, removal};

/// The CNI plugin and node agent of Trefoil.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// What is logged: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, global = true, env = "TREFOIL_LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// How lines of the log look.
    #[arg(long, global = true, env = "TREFOIL_LOG_FORMAT", default_value = "text")]
    log_format: log::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node agent.
    Agent(Box<agent::Options>),
    /// Take the plugin out of the node's CNI configuration.
    Uninstall {
        /// Directory where CNI plugins are.
        #[arg(long, env = "TREFOIL_CNI_BIN_DIR")]
        cni_bin_dir: PathBuf,
        /// Directory of the CNI configuration.
        #[arg(long, env = "TREFOIL_CNI_CONF_DIR")]
        cni_conf_dir: PathBuf,
    },
    /// Take the whole cluster's pods out of the mesh, and remove what the control plane made: what `helm uninstall`
    /// runs first, in a pod.
    Remove {
        /// Seconds that this may take.
        #[arg(long, default_value_t = 180)]
        deadline: u64,
    },
    /// Ask a running agent.
    Admin {
        /// Its admin socket.
        #[arg(
            long,
            env = "TREFOIL_ADMIN_SOCKET",
            default_value = "/run/trefoil/agent/admin.sock"
        )]
        admin_socket: PathBuf,
        /// status, workloads, config, log-level, drain.
        #[arg(default_value = "status")]
        what: String,
        /// A new value, for log-level.
        value: Option<String>,
    },
}

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return serve_runtime();
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trefoil-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One call of a container runtime.
fn serve_runtime() -> ExitCode {
    let (code, answer) = match call_plugin() {
        Ok(result) => (ExitCode::SUCCESS, result),
        Err(error) => (ExitCode::FAILURE, error.result()),
    };
    if answer != Value::Null {
        println!("{answer}");
    }
    code
}

fn call_plugin() -> Result<Value, PluginError> {
    let mut input = Vec::new();
    let mut stdin = std::io::stdin().lock();
    stdin
        .read_to_end(&mut input)
        .map_err(|error| PluginError::Input(error.to_string()))?;
    let request = Request::parse(|name| std::env::var(name).ok(), &input)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| PluginError::TryAgainLater(error.to_string()))?
        .block_on(plugin::serve(&request))
}

#[tokio::main]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let level = log::begin(&arguments.log_level, arguments.log_format).map_err(anyhow::Error::msg)?;
    match arguments.command {
        Command::Agent(options) => {
            install_tls()?;
            let deadline = Duration::from_secs(options.drain_deadline);
            let ending = CancellationToken::new();
            let agent = agent::run(*options, level, ending.clone());
            until_signal(agent, ending, deadline).await
        }
        Command::Uninstall {
            cni_bin_dir,
            cni_conf_dir,
        } => Ok(agent::conflist::uninstall(&cni_bin_dir, &cni_conf_dir)?),
        Command::Remove { deadline } => {
            install_tls()?;
            let client = kube::Client::try_from(kube::Config::incluster()?)?;
            Ok(removal::run(client, Duration::from_secs(deadline)).await?)
        }
        Command::Admin {
            admin_socket,
            what,
            value,
        } => ask(&admin_socket, &what, value).await,
    }
}

fn install_tls() -> anyhow::Result<()> {
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    installed.map_err(|_| anyhow::anyhow!("a TLS library is installed already"))
}

/// Runs the agent; a first signal ends it in order, a second or the deadline at once.
async fn until_signal(
    agent: impl Future<Output = Result<(), agent::AgentError>>,
    ending: CancellationToken,
    deadline: Duration,
) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
        }
    };
    tokio::pin!(agent);
    tokio::select! {
        ended = &mut agent => return Ok(ended?),
        () = asked() => ending.cancel(),
    }
    tokio::select! {
        ended = &mut agent => Ok(ended?),
        () = asked() => anyhow::bail!("ended by a second signal"),
        () = tokio::time::sleep(deadline) => anyhow::bail!("did not end within the drain deadline"),
    }
}

async fn ask(socket: &std::path::Path, what: &str, value: Option<String>) -> anyhow::Result<()> {
    let method = match (what, &value) {
        ("drain", _) => hyper::Method::POST,
        (_, Some(_)) => hyper::Method::PUT,
        (_, None) => hyper::Method::GET,
    };
    let path = format!("/{what}");
    let answer = call::send(socket, method, &path, value.unwrap_or_default()).await?;
    anyhow::ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
    println!("{}", answer.body);
    Ok(())
}
