//! The counters of requests, by who asks whom and what came of it. Series whose workloads are gone are dropped, so
//! labels stay bounded.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Sweeps that a series of a gone workload survives, so that its last values are scraped.
const SWEEPS: u32 = 5;
/// The buckets that such meshes use, for milliseconds and for bytes alike.
const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The counters of all requests.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    series: Arc<Mutex<HashMap<Labels, Entry>>>,
}

pub(super) type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Entry {
    series: Arc<Series>,
    /// Uids of the workloads at both ends, when it was last asked for.
    ends: Vec<String>,
    /// Sweeps for which one of them was gone.
    gone: u32,
}

/// The counters of one set of labels.
#[derive(Debug)]
pub(crate) struct Series {
    requests: AtomicU64,
    milliseconds: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    request_messages: AtomicU64,
    response_messages: AtomicU64,
}

impl Default for Series {
    fn default() -> Self {
        let histogram = || Histogram::new(BUCKETS);
        Self {
            requests: AtomicU64::new(0),
            milliseconds: histogram(),
            request_bytes: histogram(),
            response_bytes: histogram(),
            request_messages: AtomicU64::new(0),
            response_messages: AtomicU64::new(0),
        }
    }
}

impl Series {
    pub(super) fn count(&self, milliseconds: f64, (received, sent): (u64, u64)) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.milliseconds.observe(milliseconds);
        self.request_bytes.observe(received as f64);
        self.response_bytes.observe(sent as f64);
    }

    pub(super) fn count_messages(&self, received: u64, sent: u64) {
        self.request_messages.fetch_add(received, Ordering::Relaxed);
        self.response_messages.fetch_add(sent, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counters shown by `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    pub(super) fn series(&self, labels: Labels, ends: Vec<String>) -> Arc<Series> {
        let mut series = self.lock();
        let entry = series.entry(labels).or_insert_with(|| Entry {
            series: Arc::default(),
            ends: Vec::new(),
            gone: 0,
        });
        entry.ends = ends;
        entry.gone = 0;
        entry.series.clone()
    }

    /// Drops the series of workloads that are not `known` by their uid any more, and have not been for some sweeps.
    /// To be called about once a minute.
    pub fn sweep(&self, known: impl Fn(&str) -> bool) {
        self.lock().retain(|_, entry| {
            let gone = entry.ends.iter().any(|uid| !known(uid));
            let used = Arc::strong_count(&entry.series) > 1;
            entry.gone = if gone && !used { entry.gone + 1 } else { 0 };
            entry.gone < SWEEPS
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Labels, Entry>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        has: fn(&Labels) -> bool,
        of: fn(&Series) -> &AtomicU64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, entry) in self.lock().iter().filter(|(labels, _)| has(labels)) {
            let count = of(&entry.series).load(Ordering::Relaxed);
            ConstCounter::new(count).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn histogram(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        of: fn(&Series) -> &Histogram,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, entry) in self.lock().iter() {
            of(&entry.series).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let named = ("istio_requests", "Requests");
        self.counter(&mut encoder, named, |_| true, |series| &series.requests)?;
        let named = ("istio_request_messages", "Messages of gRPC calls to servers");
        self.counter(&mut encoder, named, is_grpc, |series| &series.request_messages)?;
        let named = ("istio_response_messages", "Messages of gRPC calls to clients");
        self.counter(&mut encoder, named, is_grpc, |series| &series.response_messages)?;
        let named = (
            "istio_request_duration_milliseconds",
            "From a request's beginning to its end",
        );
        self.histogram(&mut encoder, named, |series| &series.milliseconds)?;
        let named = ("istio_request_bytes", "Bytes of the bodies of requests");
        self.histogram(&mut encoder, named, |series| &series.request_bytes)?;
        let named = ("istio_response_bytes", "Bytes of the bodies of responses");
        self.histogram(&mut encoder, named, |series| &series.response_bytes)
    }
}

fn is_grpc(labels: &Labels) -> bool {
    labels
        .iter()
        .any(|(name, value)| *name == "request_protocol" && value == "grpc")
}
