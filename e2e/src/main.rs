//! `trefoil-e2e`: the suites, and the programs that they run inside pods.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use trefoil_e2e::programs::{bulk, call, hostile, load, names, redis, serve};
use trefoil_e2e::{authority, custom_resources, hbone, scale, suites};

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run suites against a mesh of their own on this machine (as root).
    Run {
        /// Their names; none: all of them.
        suites: Vec<String>,
    },
    /// Run the smoke test on a Kubernetes that has the mesh and the application in it.
    Kubernetes {
        #[command(flatten)]
        ground: suites::OnKubernetes,
    },
    /// Print the names of the suites.
    Suites,
    /// Measure the control plane before a fleet; prints a table.
    Scale(scale::Plan),
    /// Remove what an interrupted run left.
    Clean,
    /// Print the mesh's CustomResourceDefinitions.
    Crds,
    /// The test server: HTTP on 8080, lines on 9000, greetings on 9001, transfers on 9002.
    Serve {
        /// What it calls itself.
        #[arg(long, env = "TREFOIL_E2E_NAME")]
        name: String,
    },
    /// An HTTP server that breaks the rules, on 9003: the path says how.
    Hostile,
    /// A few attempts at each target; prints JSON.
    Call {
        /// `PROTOCOL@ADDRESS:PORT`, protocols h1, h2, grpc, tcp, greeting.
        #[arg(required = true)]
        targets: Vec<call::Target>,
        /// Attempts at each.
        #[arg(long, default_value_t = 1)]
        attempts: usize,
        /// When an attempt counts as late, in seconds.
        #[arg(long, default_value_t = 5.0)]
        limit: f64,
    },
    /// Ask a resolver for addresses; prints JSON.
    Ask(names::Ask),
    /// A resolver, on port 53: every name has one address, unless it begins with `missing`, `silent` or `large`.
    Resolve,
    /// Load at a fixed rate, without retries; prints JSON.
    Load(load::Load),
    /// Bytes both ways with checksums; prints JSON.
    Transfer {
        /// To whom: the test server's port 9002.
        #[arg(long)]
        target: std::net::SocketAddr,
        /// How.
        #[arg(long, default_value = "plain")]
        behaviour: bulk::Behaviour,
        /// Bytes there.
        #[arg(long, default_value_t = 0)]
        up: u64,
        /// Bytes back.
        #[arg(long, default_value_t = 0)]
        down: u64,
    },
    /// Pipeline PINGs to a Redis; prints how many were answered.
    Redis {
        /// Whose.
        #[arg(long)]
        target: std::net::SocketAddr,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: usize,
    },
    /// Reset a connection halfway.
    Reset {
        /// Whose: the test server's port 9002.
        #[arg(long)]
        target: std::net::SocketAddr,
    },
    /// Ask the mesh's authority for a certificate; prints JSON.
    Certificate(authority::Ask),
    /// Make a certificate of an authority that the mesh does not know.
    Foreign {
        /// URI names in it; repeatable.
        #[arg(long = "uri")]
        uris: Vec<String>,
        /// File with the root that peers are verified against.
        #[arg(long)]
        root: Option<PathBuf>,
        /// Where key.pem, chain.pem and root.pem are written.
        #[arg(long)]
        out: PathBuf,
    },
    /// One CONNECT through a tunnel of our own; prints JSON.
    HboneCall(hbone::client::Ask),
    /// The other end of tunnels: prints one JSON line for each CONNECT.
    HboneServe {
        /// Where.
        #[arg(long)]
        listen: std::net::SocketAddr,
        /// Folder with key.pem, chain.pem and root.pem.
        #[arg(long)]
        credentials: PathBuf,
        /// What it calls itself.
        #[arg(long)]
        name: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trefoil-e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { suites } => {
            let failed = suites::run(&suites).await?;
            return Ok(ExitCode::from(u8::from(failed > 0)));
        }
        Command::Kubernetes { ground } => {
            let failed = suites::run_on_kubernetes(ground).await;
            return Ok(ExitCode::from(u8::from(failed > 0)));
        }
        Command::Suites => suites::names().for_each(|name| println!("{name}")),
        Command::Scale(plan) => {
            for (what, how_much) in scale::table::rows(&scale::run(&plan).await?) {
                println!("| {what} | {how_much} |");
            }
        }
        Command::Clean => suites::clean().await?,
        Command::Crds => print!("{}", custom_resources::definitions()?),
        Command::Serve { name } => serve::serve(name).await?,
        Command::Hostile => hostile::serve().await?,
        Command::Call {
            targets,
            attempts,
            limit,
        } => {
            print(&call::call(targets, attempts, Duration::from_secs_f64(limit)).await)?;
        }
        Command::Ask(ask) => print(&names::ask(&ask).await?)?,
        Command::Resolve => names::resolve().await?,
        Command::Load(plan) => print(&load::load(&plan).await)?,
        Command::Transfer {
            target,
            behaviour,
            up,
            down,
        } => print(&bulk::transfer(target, behaviour, up, down).await?)?,
        Command::Redis { target, count } => print(&redis::ping(target, count).await?)?,
        Command::Reset { target } => bulk::reset(target).await?,
        Command::Certificate(ask) => print(&authority::ask(&ask).await?)?,
        Command::Foreign { uris, root, out } => authority::foreign(&uris, root.as_deref(), &out)?,
        Command::HboneCall(ask) => print(&hbone::client::ask(&ask).await)?,
        Command::HboneServe {
            listen,
            credentials,
            name,
        } => {
            let listener = TcpListener::bind(listen).await.context("listening")?;
            let seen = |tunnel: &_| drop(print(tunnel));
            hbone::server::serve(listener, &credentials, &name, seen).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
