//! What fetching certificates counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::keep::FetchError;
use super::{Issued, SignError};

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

/// What fetching counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    fetches: Family<Ended, Counter>,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "certificate_fetches",
            "Certificates asked for: issued, refused, unreachable, unusable",
            self.fetches.clone(),
        );
    }

    pub(super) fn fetched(&self, fetched: &Result<Issued, FetchError>) {
        let result = match fetched {
            Ok(_) => "issued",
            Err(FetchError::Sign(SignError::Refused(_))) => "refused",
            Err(FetchError::Sign(SignError::Unreachable(_))) => "unreachable",
            Err(FetchError::Unusable(_)) => "unusable",
        };
        self.fetches.get_or_create(&Ended { result }).inc();
    }
}
