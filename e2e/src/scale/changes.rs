//! Rounds of changes to single pods, at a steady rate: who was sent each, when the last had it, what it cost.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;
use trefoil_api::proto::type_url;

use super::client::kind;
use super::fleet::Fleet;
use super::ledger::Id;
use super::objects::{Objects, PodAt, Size};
use super::processes::{self, Process};

/// How long after the last change the last client may have it.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nothing may come when everything has.
const QUIET: Duration = Duration::from_millis(500);

/// What is done to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A label of its own.
    Label,
    /// The endpoint slice of its service says that it is not ready.
    Endpoint,
}

/// What a round was.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Changes made.
    pub changes: usize,
    /// From the write to the last client, sorted.
    pub spread: Vec<Duration>,
    /// From the write to its answer, sorted.
    pub write: Vec<Duration>,
    /// Clients that were sent a change, summed over changes, and how many there should have been.
    pub receipts: (u64, u64),
    /// Resources that the fleet received besides.
    pub others: u64,
    /// Resources that the control plane encoded.
    pub encoded: u64,
    /// Bytes of resources sent.
    pub bytes: u64,
    /// CPU of the control plane.
    pub cpu: Duration,
    /// CPU of the API.
    pub api_cpu: Duration,
    /// CPU of the fleet, and of whoever writes.
    pub fleet_cpu: Duration,
}

struct Made {
    id: Id,
    concerned: usize,
    begun: Instant,
    answered: Duration,
}

/// What a round needs.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The mesh.
    pub size: Size,
    /// Writes.
    pub objects: &'a Objects,
    /// Receives.
    pub fleet: &'a Fleet,
    /// Is measured.
    pub control_plane: &'a Process,
    /// Is not.
    pub api: &'a Process,
}

impl Ground<'_> {
    /// Changes so many pods, so many a second.
    pub async fn round(&self, what: Kind, changes: usize, rate: f64) -> anyhow::Result<Round> {
        let ledger = &self.fleet.ledger;
        self.fleet.quiet(QUIET).await;
        let before = (
            self.control_plane.used()?.cpu,
            self.api.used()?.cpu,
            processes::used("self")?.cpu,
        );
        let encoded = self.control_plane.metric(ENCODED).await?;
        let (resources, bytes) = (ledger.resources.load(Relaxed), ledger.bytes.load(Relaxed));
        let begun = Instant::now();
        let changing = (0..changes).map(|change| {
            let at = begun + Duration::from_secs_f64(change as f64 / rate);
            self.change(what, change, at)
        });
        let made = try_join_all(changing).await?;
        self.arrived(&made).await?;
        // What comes too often, or to others, comes late at the latest now.
        self.fleet.quiet(QUIET).await;
        let mut round = Round {
            changes,
            encoded: (self.control_plane.metric(ENCODED).await? - encoded) as u64,
            bytes: ledger.bytes.load(Relaxed) - bytes,
            cpu: self.control_plane.used()?.cpu - before.0,
            api_cpu: self.api.used()?.cpu - before.1,
            fleet_cpu: processes::used("self")?.cpu - before.2,
            ..Round::default()
        };
        for one in &made {
            let receipts = ledger.receipts(one.id);
            round.receipts.0 += u64::from(receipts.clients);
            round.receipts.1 += one.concerned as u64;
            round.write.push(one.answered);
            if let Some(last) = receipts.last {
                round.spread.push(last.saturating_duration_since(one.begun));
            }
        }
        round.others = (ledger.resources.load(Relaxed) - resources).saturating_sub(round.receipts.0);
        round.spread.sort();
        round.write.sort();
        Ok(round)
    }

    async fn change(&self, what: Kind, change: usize, at: Instant) -> anyhow::Result<Made> {
        // Every pod once: over nodes and services as they come.
        let step = (self.size.pods / 7919).max(1) * 2 + 1;
        let pod = PodAt(change * step % self.size.pods);
        let resource = self.size.resource(pod);
        let id = self.fleet.ledger.id(kind(type_url::ADDRESS), &resource);
        self.fleet.ledger.clear(id);
        tokio::time::sleep_until(at.into()).await;
        let begun = Instant::now();
        match what {
            Kind::Label => self.objects.change(pod, self.fleet.ledger.now()).await?,
            Kind::Endpoint => self.objects.ready(pod, false).await?,
        }
        Ok(Made {
            id,
            concerned: self.fleet.concerned(&resource),
            begun,
            answered: begun.elapsed(),
        })
    }

    /// Waits until everybody who is to have the changes has them.
    async fn arrived(&self, made: &[Made]) -> anyhow::Result<()> {
        let begun = Instant::now();
        let owing = |one: &&Made| (self.fleet.ledger.receipts(one.id).clients as usize) < one.concerned;
        while let Some(one) = made.iter().find(owing) {
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} of {} clients were sent a change within {} s",
                self.fleet.ledger.receipts(one.id).clients,
                one.concerned,
                PATIENCE.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// The metric that counts encodings.
const ENCODED: &str = "trefoil_control_plane_resources_encoded_total";

/// The value below which such a share of sorted values lies.
#[must_use]
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(at - 1).copied().unwrap_or_default()
}
