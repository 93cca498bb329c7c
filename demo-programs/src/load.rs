//! Clients that ask many times, count what came of it, and never retry.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::LIMIT;
use crate::ask::{Connection, http, resolve};

/// What a load has come to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Requests begun.
    pub sent: u32,
    /// Whose answer came.
    pub served: u32,
    /// The others, by what happened.
    pub failed: Vec<String>,
    /// Answers to the client that stays connected.
    pub long_lived: u32,
    /// Over how many connections: a plane that is left asks its clients to come again, between two answers.
    pub connections: u32,
    /// What happened to it.
    pub long_lived_failure: Option<String>,
}

/// What visits have come to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Visits {
    /// How many were answered with what.
    pub answers: BTreeMap<String, u32>,
    /// The others, by what happened.
    pub failed: Vec<String>,
}

/// Requests one after the other.
pub(crate) async fn visit(target: &str, visits: u32) -> Visits {
    let mut counted = Visits::default();
    for _ in 0..visits {
        match tokio::time::timeout(LIMIT, http(target)).await {
            Ok(Ok(answer)) => *counted.answers.entry(answer).or_default() += 1,
            Ok(Err(error)) => counted.failed.push(format!("{error:#}")),
            Err(_) => counted.failed.push("no answer".into()),
        }
    }
    counted
}

/// Requests at a fixed rate, and a client that stays connected.
pub(crate) async fn load(target: &str, rate: u32, seconds: u32) -> Counts {
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
    let stayed = staying.await.unwrap_or_default();
    (counts.long_lived, counts.connections) = (stayed.answers, stayed.connections);
    counts.long_lived_failure = match stayed.connections {
        0 => Some("it broke".into()),
        _ => stayed.failure,
    };
    counts
}

async fn one(address: SocketAddr) -> anyhow::Result<()> {
    Connection::open(address).await?.get().await.map(drop)
}

/// What has come of a client that stays connected.
#[derive(Default)]
struct Stayed {
    answers: u32,
    connections: u32,
    failure: Option<String>,
}

/// Asks ten times a second, over one connection for as long as the server does not say that it ends.
async fn stay(address: SocketAddr, end: Instant) -> Stayed {
    let mut stayed = Stayed::default();
    let asked = async {
        let mut connection: Option<Connection> = None;
        while Instant::now() < end {
            let open = match &mut connection {
                Some(open) if !open.over => open,
                ended => {
                    stayed.connections += 1;
                    ended.insert(Connection::open(address).await?)
                }
            };
            tokio::time::timeout(LIMIT, open.get()).await??;
            stayed.answers += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    let failure = asked.await.err().map(|error| format!("{error:#}"));
    stayed.failure = failure;
    stayed
}
