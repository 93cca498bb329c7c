//! What is counted of queries. Labels are few, whatever is asked.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::message::Transport;

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered from what the mesh knows.
    Answered,
    /// The resolver that was asked responded.
    Forwarded,
    /// It did not.
    Failed,
    /// Too many wait for a resolver.
    Overloaded,
    /// Not a query.
    Malformed,
    /// Nobody redirected it here.
    Misdirected,
}

impl Outcome {
    /// As labels and lines name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Forwarded => "forwarded",
            Self::Failed => "failed",
            Self::Overloaded => "overloaded",
            Self::Malformed => "malformed",
            Self::Misdirected => "misdirected",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
    transport: &'static str,
}

/// The counters. Clones are the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    queries: Family<Labels, Counter>,
    resolvers: Histogram,
}

impl Metrics {
    /// Has them shown.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            queries: Family::default(),
            resolvers: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0]),
        };
        registry.register(
            "dns_queries",
            "Queries of pods, by what became of them",
            metrics.queries.clone(),
        );
        registry.register(
            "dns_resolver_seconds",
            "How long resolvers took to respond",
            metrics.resolvers.clone(),
        );
        metrics
    }

    pub(crate) fn count(&self, outcome: Outcome, transport: Transport) {
        let labels = Labels {
            outcome: outcome.as_str(),
            transport: name(transport),
        };
        self.queries.get_or_create(&labels).inc();
    }

    pub(crate) fn responded(&self, after: Duration) {
        self.resolvers.observe(after.as_secs_f64());
    }
}

pub(crate) fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Datagram => "udp",
        Transport::Stream => "tcp",
    }
}
