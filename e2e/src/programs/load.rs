//! Load at a fixed rate, without retries: each attempt is due at its time whether or not the one before has
//! ended, so that a stall is counted and not hidden.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::session::{Outcome, Protocol, Session, attempt_and_keep, classify};

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// What to speak.
    #[arg(long, default_value = "h1")]
    pub protocol: Protocol,
    /// To whom.
    #[arg(long)]
    pub target: SocketAddr,
    /// Attempts a second, all connections together.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Long-lived connections; none: a connection for each attempt.
    #[arg(long, default_value_t = 0)]
    pub connections: usize,
    /// When an attempt counts as late, in seconds.
    #[arg(long, default_value_t = 15.0)]
    pub limit: f64,
    /// How long the connection of an attempt stays open after the answer, in seconds.
    #[arg(long, default_value_t = 0.0)]
    pub hold: f64,
    /// Stop before time once this file exists.
    #[arg(long)]
    pub until: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Attempts made.
    pub attempted: u64,
    /// Answered.
    pub served: u64,
    /// Connection refused.
    pub refused: u64,
    /// Connection reset.
    pub reset: u64,
    /// Connection ended before the answer.
    pub closed: u64,
    /// Not answered in time.
    pub late: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Long-lived connections opened.
    pub connections: u64,
    /// Long-lived connections that ended before the load did.
    pub connections_lost: u64,
    /// The slowest answer, in milliseconds.
    pub worst_milliseconds: u64,
    /// Answers by server.
    pub servers: BTreeMap<String, u64>,
    /// Addresses that servers saw, without ports.
    pub seen: BTreeMap<String, u64>,
    /// Attempts that were not answered, the first thousand.
    pub unserved: Vec<Unserved>,
    /// Attempts that were answered and had to wait, the first thousand.
    pub waited: Vec<Waited>,
}

/// An attempt that was answered, after [`WAITED`] or more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Waited {
    /// When it began, in milliseconds since the epoch.
    pub begun: u64,
    /// When it ended, likewise.
    pub ended: u64,
}

/// Who takes so long has waited for something, in milliseconds.
pub const WAITED: u64 = 50;

/// An attempt that was not answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unserved {
    /// When it began, in milliseconds since the epoch.
    pub begun: u64,
    /// When it ended, likewise.
    pub ended: u64,
    /// How.
    pub outcome: Outcome,
}

impl std::fmt::Display for Unserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} after {} ms", self.outcome, self.ended - self.begun)
    }
}

impl Tally {
    /// Attempts that were not answered.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.attempted - self.served
    }

    fn count(&mut self, Ended { outcome, took, at }: Ended) {
        self.attempted += 1;
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (begun, ended) = (at.saturating_sub(milliseconds), at);
        if !outcome.served() && self.unserved.len() < 1000 {
            let outcome = outcome.clone();
            self.unserved.push(Unserved {
                begun,
                ended,
                outcome,
            });
        }
        match outcome {
            Outcome::Served(answer) => {
                self.served += 1;
                self.worst_milliseconds = self.worst_milliseconds.max(milliseconds);
                if milliseconds >= WAITED && self.waited.len() < 1000 {
                    self.waited.push(Waited { begun, ended });
                }
                *self.servers.entry(answer.server).or_default() += 1;
                *self.seen.entry(answer.seen.ip().to_string()).or_default() += 1;
            }
            Outcome::Refused => self.refused += 1,
            Outcome::Reset => self.reset += 1,
            Outcome::Closed => self.closed += 1,
            Outcome::Late => self.late += 1,
            Outcome::Failed(_) => self.failed += 1,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} served", self.served, self.attempted)?;
        for (count, what) in [
            (self.refused, "refused"),
            (self.reset, "reset"),
            (self.closed, "closed"),
            (self.late, "late"),
            (self.failed, "failed"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.connections > 0 {
            write!(
                f,
                ", {} of {} connections lost",
                self.connections_lost, self.connections
            )?;
        }
        write!(f, ", slowest {} ms", self.worst_milliseconds)?;
        match self.unserved.first() {
            Some(example) => write!(f, "; first failure: {example}"),
            None => Ok(()),
        }
    }
}

/// Milliseconds since the epoch: the clock that the machine's processes share.
#[must_use]
pub fn now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

enum Event {
    Opened,
    Lost,
    Ended(Ended),
}

/// The end of an attempt, stamped as it came: it may be counted later.
struct Ended {
    outcome: Outcome,
    took: Duration,
    /// In milliseconds since the epoch.
    at: u64,
}

impl Event {
    /// An attempt that began then ends now.
    fn ended(outcome: Outcome, begun: Instant) -> Self {
        let (took, at) = (begun.elapsed(), now());
        Self::Ended(Ended { outcome, took, at })
    }
}

/// Runs the load to its end and counts.
pub async fn load(load: &Load) -> Tally {
    let (events, mut received) = mpsc::unbounded_channel();
    let driver = async {
        if load.connections == 0 {
            one_connection_each(load, events).await;
        } else {
            long_lived(load, events).await;
        }
    };
    let counting = async {
        let mut tally = Tally::default();
        while let Some(event) = received.recv().await {
            match event {
                Event::Opened => tally.connections += 1,
                Event::Lost => tally.connections_lost += 1,
                Event::Ended(ended) => tally.count(ended),
            }
        }
        tally
    };
    tokio::join!(driver, counting).1
}

/// The pace of `rate` a second, until the time is over or the file appears.
struct Pace {
    ticks: tokio::time::Interval,
    end: Instant,
    until: Option<PathBuf>,
}

impl Pace {
    fn new(load: &Load, rate: f64) -> Self {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self {
            ticks,
            end: Instant::now() + Duration::from_secs_f64(load.seconds),
            until: load.until.clone(),
        }
    }

    async fn next(&mut self) -> bool {
        self.ticks.tick().await;
        Instant::now() < self.end && !self.until.as_ref().is_some_and(|path| path.exists())
    }
}

async fn one_connection_each(load: &Load, events: mpsc::UnboundedSender<Event>) {
    let limit = Duration::from_secs_f64(load.limit);
    let hold = Duration::from_secs_f64(load.hold);
    let (protocol, target) = (load.protocol, load.target);
    let mut pace = Pace::new(load, load.rate);
    while pace.next().await {
        let events = events.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            let (outcome, session) = attempt_and_keep(protocol, target, limit).await;
            let _ = events.send(Event::ended(outcome, begun));
            if session.is_some() {
                tokio::time::sleep(hold).await;
            }
        });
    }
}

async fn long_lived(load: &Load, events: mpsc::UnboundedSender<Event>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..load.connections {
        let (load, events) = (load.clone(), events.clone());
        tasks.spawn(async move { one_long_lived(&load, &events).await });
    }
    drop(events);
    tasks.join_all().await;
}

/// A connection; one that cannot be had is an attempt that failed.
async fn opened(load: &Load, events: &mpsc::UnboundedSender<Event>) -> Option<Session> {
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(load.limit);
    let opened = tokio::time::timeout(limit, Session::open(load.protocol, load.target)).await;
    let outcome = match opened {
        Ok(Ok(session)) => {
            let _ = events.send(Event::Opened);
            return Some(session);
        }
        Ok(Err(error)) => classify(Ok(Err(error))),
        Err(elapsed) => classify(Err(elapsed)),
    };
    let _ = events.send(Event::ended(outcome, begun));
    None
}

#[expect(clippy::cast_precision_loss, reason = "connections are few")]
async fn one_long_lived(load: &Load, events: &mpsc::UnboundedSender<Event>) {
    let limit = Duration::from_secs_f64(load.limit);
    let Some(mut session) = opened(load, events).await else {
        return;
    };
    let mut pace = Pace::new(load, load.rate / load.connections as f64);
    while pace.next().await {
        if session.left() {
            session = match opened(load, events).await {
                Some(session) => session,
                None => return,
            };
        }
        let begun = Instant::now();
        let outcome = classify(tokio::time::timeout(limit, session.exchange()).await);
        let served = outcome.served();
        let _ = events.send(Event::ended(outcome, begun));
        if !served {
            let _ = events.send(Event::Lost);
            return;
        }
    }
}

#[cfg(test)]
mod tests;
