//! The small real programs of the demonstration: an HTTP server that may ask others before it answers, and
//! clients that count and never retry.

pub(super) mod load;

use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Subcommand;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::catalog::{self, Client, Method};
use crate::ask;

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The programs.
#[derive(Debug, Subcommand)]
pub(crate) enum App {
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

/// Runs one of the programs.
pub(crate) async fn run(app: App) -> anyhow::Result<i32> {
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
            let answer = tokio::time::timeout(LIMIT, call(&target, redis))
                .await
                .context("no answer")??;
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

/// A server, and whom it asks before it answers.
struct Front {
    name: String,
    upstream: Option<String>,
    cache: Option<String>,
    catalog: Option<Client>,
}

async fn serve(port: u16, front: Arc<Front>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let front = front.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let front = front.clone();
                async move { Ok::<_, Infallible>(front.answer().await) }
            });
            // A connection that breaks is its client's to notice.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Front {
    async fn answer(&self) -> Response<Full<Bytes>> {
        match self.asked().await {
            Ok(text) => Response::new(Full::from(text)),
            Err(error) => {
                let mut response = Response::new(Full::from(format!("{}: {error:#}", self.name)));
                *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    async fn asked(&self) -> anyhow::Result<String> {
        let mut text = self.name.clone();
        if let Some(cache) = &self.cache {
            text.push_str(&format!(" (answer {})", redis(cache, "INCR answers").await?));
        }
        if let Some(upstream) = &self.upstream {
            text.push_str(&format!(", having asked {}", call(upstream, false).await?));
        }
        if let Some(catalog) = &self.catalog {
            let answer = catalog.clone().call(Method::Find).await;
            anyhow::ensure!(answer.served(), "{}: {}", answer.status(), answer.said);
            text.push_str(&format!(", having asked catalog {}", answer.said));
        }
        Ok(text)
    }
}

async fn call(target: &str, is_redis: bool) -> anyhow::Result<String> {
    if is_redis {
        return redis(target, "PING").await;
    }
    let (status, body) = ask::get(TcpStream::connect(target).await?, "/").await?;
    anyhow::ensure!(status == 200, "{status}: {body}");
    Ok(body)
}

/// One command, as people type them, and its one-line answer.
async fn redis(target: &str, command: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).await?;
    anyhow::ensure!(length > 0, "the connection was closed");
    Ok(String::from_utf8_lossy(&answer[1..length]).trim().to_owned())
}
