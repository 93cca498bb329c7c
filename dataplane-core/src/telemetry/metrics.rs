//! Counters of connections by who talks to whom. A connection finds its series once and then only adds.
//! Series whose workloads are gone are dropped, so labels stay bounded.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Flag, Record, Reporter};

/// Sweeps that a series of a gone workload survives, so that its last values are scraped.
const SWEEPS: u32 = 5;

/// All counters of a process.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    series: Mutex<HashMap<Key, Entry>>,
    open: [AtomicI64; Reporter::ALL.len()],
    stripped_peers: AtomicU64,
    exhausted: Mutex<HashMap<(String, &'static str), u64>>,
    /// By dry-run policy.
    audited: Mutex<HashMap<String, u64>>,
}

/// The counters of one set of labels.
#[derive(Debug, Default)]
pub struct Series {
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    labels: Labels,
    series: Arc<Series>,
    /// Sweeps for which a workload of it was gone.
    gone: u32,
}

pub(super) type Labels = Vec<(&'static str, String)>;

/// What tells series apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) reporter: Reporter,
    pub(super) flag: Flag,
    pub(super) path: &'static str,
    /// Uid of the workload, or what else is known: an identity, or nothing.
    pub(super) source: (Option<String>, Option<String>),
    pub(super) destination: (Option<String>, Option<String>),
    pub(super) service: Option<String>,
}

impl Metrics {
    /// Counters shown by `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    pub(super) fn series(&self, record: &Record, flag: Flag) -> Arc<Series> {
        let key = record.key(flag);
        let mut series = lock(&self.shared.series);
        let entry = series.entry(key).or_insert_with(|| Entry {
            labels: record.labels(flag),
            series: Arc::default(),
            gone: 0,
        });
        entry.gone = 0;
        entry.series.clone()
    }

    pub(super) fn open(&self, reporter: Reporter) -> &AtomicI64 {
        &self.shared.open[reporter as usize]
    }

    /// A forwarded identity was claimed by one who may not, and not believed.
    pub fn stripped_peer(&self) {
        self.shared.stripped_peers.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection, or a request, was allowed that these dry-run policies would have denied.
    pub fn audited(&self, policies: &[String]) {
        let mut audited = lock(&self.shared.audited);
        for policy in policies {
            *audited.entry(policy.clone()).or_default() += 1;
        }
    }

    /// Drops the counts of policies that are no more.
    pub fn sweep_policies(&self, known: impl Fn(&str) -> bool) {
        lock(&self.shared.audited).retain(|policy, _| known(policy));
    }

    /// A workload has used up a budget.
    pub fn exhausted(&self, workload: &str, budget: &'static str) {
        let mut exhausted = lock(&self.shared.exhausted);
        *exhausted.entry((workload.to_owned(), budget)).or_default() += 1;
    }

    /// Drops the series of workloads that are not `known` by their uid any more, and have not been for some
    /// sweeps. To be called about once a minute.
    pub fn sweep(&self, known: impl Fn(&str) -> bool) {
        lock(&self.shared.series).retain(|key, entry| {
            let uids = [&key.source.0, &key.destination.0];
            let gone = uids.into_iter().flatten().any(|uid| !known(uid));
            let used = Arc::strong_count(&entry.series) > 1;
            entry.gone = if gone && !used { entry.gone + 1 } else { 0 };
            entry.gone < SWEEPS
        });
        lock(&self.shared.exhausted).retain(|(workload, _), _| known(workload));
    }

    fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        value: fn(&Series) -> &AtomicU64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for entry in lock(&self.shared.series).values() {
            let count = value(&entry.series).load(Ordering::Relaxed);
            if count > 0 {
                ConstCounter::new(count).encode(family.encode_family(&entry.labels)?)?;
            }
        }
        Ok(())
    }
}

const OPENED: (&str, &str) = ("istio_tcp_connections_opened", "Connections opened");
const CLOSED: (&str, &str) = ("istio_tcp_connections_closed", "Connections closed");
const FAILED: (&str, &str) = (
    "istio_tcp_connections_failed",
    "Connections refused, failed or cut, by response_flags",
);
const RECEIVED: (&str, &str) = ("istio_tcp_received_bytes", "Bytes from clients to servers");
const SENT: (&str, &str) = ("istio_tcp_sent_bytes", "Bytes from servers to clients");

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.counter(&mut encoder, OPENED, |series| &series.opened)?;
        self.counter(&mut encoder, CLOSED, |series| &series.closed)?;
        self.counter(&mut encoder, FAILED, |series| &series.failed)?;
        self.counter(&mut encoder, RECEIVED, |series| &series.received)?;
        self.counter(&mut encoder, SENT, |series| &series.sent)?;
        let name = "istio_tcp_sockets_open";
        let mut family =
            encoder.encode_descriptor(name, "Connections being carried", None, MetricType::Gauge)?;
        for reporter in Reporter::ALL {
            let open = self.open(reporter).load(Ordering::Relaxed);
            ConstGauge::new(open).encode(family.encode_family(&[("reporter", reporter.as_str())])?)?;
        }
        let (name, help) = (
            "trefoil_stripped_peers",
            "Forwarded identities that were not believed",
        );
        let stripped = self.shared.stripped_peers.load(Ordering::Relaxed);
        ConstCounter::new(stripped).encode(encoder.encode_descriptor(
            name,
            help,
            None,
            MetricType::Counter,
        )?)?;
        let (name, help) = (
            "trefoil_policy_audit_denied",
            "Connections that were allowed, which a policy of action Audit would have denied",
        );
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (policy, count) in lock(&self.shared.audited).iter() {
            ConstCounter::new(*count).encode(family.encode_family(&[("policy", policy.as_str())])?)?;
        }
        let (name, help) = (
            "trefoil_budget_exhausted",
            "Times that a workload had used up a budget",
        );
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((workload, budget), count) in lock(&self.shared.exhausted).iter() {
            let labels = [("workload", workload.as_str()), ("budget", *budget)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
