//! The small real programs of the demonstration: an HTTP server that may ask others before it answers, and
//! clients that count and never retry.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Subcommand;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};

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

/// What a load has come to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests begun.
    pub(crate) sent: u32,
    /// Whose answer came.
    pub(crate) served: u32,
    /// The others, by what happened.
    pub(crate) failed: Vec<String>,
    /// Answers over the connection that stays.
    pub(crate) long_lived: u32,
    /// What happened to it.
    pub(crate) long_lived_failure: Option<String>,
}

/// Runs one of the programs.
pub(crate) async fn run(app: App) -> anyhow::Result<i32> {
    match app {
        App::Serve {
            name,
            port,
            upstream,
            cache,
        } => serve(name, port, upstream, cache).await?,
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
        } => println!("{}", serde_json::to_string(&load(&target, rate, seconds).await)?),
    }
    Ok(0)
}

async fn serve(
    name: String,
    port: u16,
    upstream: Option<String>,
    cache: Option<String>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (name, upstream, cache) = (name.clone(), upstream.clone(), cache.clone());
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let (name, upstream, cache) = (name.clone(), upstream.clone(), cache.clone());
                async move { Ok::<_, Infallible>(answer(&name, upstream.as_deref(), cache.as_deref()).await) }
            });
            // A connection that breaks is its client's to notice.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(name: &str, upstream: Option<&str>, cache: Option<&str>) -> Response<Full<Bytes>> {
    let asked = async {
        let mut text = name.to_owned();
        if let Some(cache) = cache {
            text.push_str(&format!(" (answer {})", redis(cache, "INCR answers").await?));
        }
        if let Some(upstream) = upstream {
            text.push_str(&format!(", having asked {}", call(upstream, false).await?));
        }
        anyhow::Ok(text)
    };
    match asked.await {
        Ok(text) => Response::new(Full::from(text)),
        Err(error) => {
            let mut response = Response::new(Full::from(format!("{name}: {error:#}")));
            *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
            response
        }
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

async fn load(target: &str, rate: u32, seconds: u32) -> Counts {
    let mut counts = Counts::default();
    let address = match resolve(target).await {
        Ok(address) => address,
        Err(error) => {
            counts.failed.push(format!("{error:#}"));
            return counts;
        }
    };
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let staying = tokio::spawn(stay(address, end));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut requests = Vec::new();
    for _ in 0..rate * seconds {
        tick.tick().await;
        requests.push(tokio::spawn(tokio::time::timeout(LIMIT, one(address))));
    }
    for request in requests {
        counts.sent += 1;
        match request.await {
            Ok(Ok(Ok(()))) => counts.served += 1,
            Ok(Ok(Err(error))) => counts.failed.push(format!("{error:#}")),
            _ => counts.failed.push("no answer".into()),
        }
    }
    (counts.long_lived, counts.long_lived_failure) = staying.await.unwrap_or((0, Some("it broke".into())));
    counts
}

async fn resolve(target: &str) -> anyhow::Result<SocketAddr> {
    lookup_host(target)
        .await?
        .next()
        .with_context(|| format!("{target} has no address"))
}

async fn one(address: SocketAddr) -> anyhow::Result<()> {
    let (status, body) = ask::get(TcpStream::connect(address).await?, "/").await?;
    anyhow::ensure!(status == 200, "{status}: {body}");
    Ok(())
}

/// Asks over one connection, ten times a second.
async fn stay(address: SocketAddr, end: Instant) -> (u32, Option<String>) {
    let mut served = 0;
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        while Instant::now() < end {
            sender.ready().await?;
            let request = Request::get("/")
                .header("host", "demo")
                .body(Full::<Bytes>::default())?;
            let response = tokio::time::timeout(LIMIT, sender.send_request(request)).await??;
            http_body_util::BodyExt::collect(response.into_body()).await?;
            served += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    let failure = asked.await.err().map(|error| format!("{error:#}"));
    (served, failure)
}
