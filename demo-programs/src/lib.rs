//! The small real programs of the demonstration: an HTTP server that may ask others before it answers, a gRPC API in
//! versions, and clients that count. They know nothing of the mesh, and never repeat what failed.

mod ask;
pub mod catalog;
mod front;
pub mod load;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;

use crate::catalog::{Client, Method};
use crate::front::{Front, serve};

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The programs.
#[derive(Debug, Subcommand)]
pub enum App {
    /// An HTTP server.
    Serve {
        /// What it says it is.
        #[arg(long)]
        name: String,
        /// Its port.
        #[arg(long)]
        port: u16,
        /// HOST:PORT that it asks before it answers.
        #[arg(long)]
        upstream: Option<String>,
        /// HOST:PORT of a Redis in which it counts its answers.
        #[arg(long)]
        cache: Option<String>,
        /// HOST:PORT of the catalog, in which it looks something up.
        #[arg(long)]
        catalog: Option<String>,
    },
    /// The catalog, a gRPC server.
    Catalog {
        /// Its version.
        #[arg(long)]
        version: String,
        /// Its port.
        #[arg(long)]
        port: u16,
    },
    /// One call of the catalog.
    Ask {
        /// HOST:PORT.
        target: String,
        /// What.
        method: Method,
    },
    /// Requests one after the other, each over a connection of its own; prints what answered how many.
    Visit {
        /// HOST:PORT.
        target: String,
        /// How many.
        #[arg(long)]
        visits: u32,
    },
    /// One request.
    Call {
        /// HOST:PORT.
        target: String,
        /// It is a Redis.
        #[arg(long)]
        redis: bool,
    },
    /// Requests at a fixed rate, each over a connection of its own, and one connection that stays.
    Load {
        /// HOST:PORT.
        target: String,
        /// Requests a second.
        #[arg(long)]
        rate: u32,
        /// For how long.
        #[arg(long)]
        seconds: u32,
    },
}

/// Runs one of the programs; its exit code.
pub async fn run(app: App) -> anyhow::Result<i32> {
    match app {
        App::Serve {
            name,
            port,
            upstream,
            cache,
            catalog,
        } => {
            let catalog = catalog.as_deref().map(Client::new).transpose()?;
            let front = Front {
                name,
                upstream,
                cache,
                catalog,
            };
            serve(port, Arc::new(front)).await?;
        }
        App::Catalog { version, port } => catalog::serve(version, port).await?,
        App::Ask { target, method } => {
            let answer = Client::new(&target)?.call(method).await;
            println!("{}", serde_json::to_string(&answer)?);
        }
        App::Visit { target, visits } => {
            println!("{}", serde_json::to_string(&load::visit(&target, visits).await)?);
        }
        App::Call { target, redis } => {
            let asked = async {
                match redis {
                    true => ask::redis(&target, "PING").await,
                    false => ask::http(&target).await,
                }
            };
            let answer = tokio::time::timeout(LIMIT, asked).await.context("no answer")??;
            println!("{answer}");
        }
        App::Load {
            target,
            rate,
            seconds,
        } => println!(
            "{}",
            serde_json::to_string(&load::load(&target, rate, seconds).await)?
        ),
    }
    Ok(0)
}
