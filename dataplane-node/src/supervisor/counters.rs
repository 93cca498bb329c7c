//! What the supervisor counts: what it signed for workers, and what it refused them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What a worker asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Sockets in a pod's namespace.
    Sockets,
    /// A certificate.
    Certificate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    what: &'static str,
    scope: String,
}

/// The counters. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    granted: Family<Labels, Counter>,
    out_of_scope: Family<Labels, Counter>,
}

impl Counters {
    /// Has them shown.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "node_granted",
            "Sockets and certificates that workers got",
            self.granted.clone(),
        );
        registry.register(
            "node_out_of_scope",
            "Requests of workers for pods that are not theirs",
            self.out_of_scope.clone(),
        );
    }

    /// A worker got what it asked for.
    pub(crate) fn granted(&self, what: Asked, scope: String, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.granted
            .get_or_create(&Labels::new(what, scope))
            .inc_by(count);
    }

    /// A worker asked for a pod that is not its own.
    pub(crate) fn out_of_scope(&self, what: Asked, scope: String) {
        self.out_of_scope.get_or_create(&Labels::new(what, scope)).inc();
    }

    /// A worker is gone for good: its series end.
    pub(crate) fn forget(&self, scope: &str) {
        for what in [Asked::Sockets, Asked::Certificate] {
            let labels = Labels::new(what, scope.to_owned());
            self.granted.remove(&labels);
            self.out_of_scope.remove(&labels);
        }
    }
}

impl Labels {
    fn new(what: Asked, scope: String) -> Self {
        let what = match what {
            Asked::Sockets => "sockets",
            Asked::Certificate => "certificate",
        };
        Self { what, scope }
    }
}
