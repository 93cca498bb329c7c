//! A few attempts at several targets, one after another on each, all targets at once.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::session::{Outcome, Protocol, attempt};

/// `PROTOCOL@ADDRESS:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What to speak.
    pub protocol: Protocol,
    /// To whom.
    pub address: SocketAddr,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, address) = text.split_once('@').context("PROTOCOL@ADDRESS:PORT")?;
        Ok(Self {
            protocol: Protocol::from_str(protocol, false).map_err(anyhow::Error::msg)?,
            address: address.parse().with_context(|| format!("address {address:?}"))?,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.protocol, self.address)
    }
}

/// The outcomes at one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calls {
    /// What was called.
    pub target: Target,
    /// One for each attempt, in order.
    pub outcomes: Vec<Outcome>,
}

impl Calls {
    /// How many attempts were answered.
    #[must_use]
    pub fn served(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.served()).count()
    }
}

/// Calls every target `attempts` times.
pub async fn call(targets: Vec<Target>, attempts: usize, limit: Duration) -> Vec<Calls> {
    join_all(targets.into_iter().map(async |target| {
        let mut outcomes = Vec::with_capacity(attempts);
        for _ in 0..attempts {
            outcomes.push(attempt(target.protocol, target.address, limit).await);
        }
        Calls { target, outcomes }
    }))
    .await
}
