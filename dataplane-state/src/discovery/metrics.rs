//! What the stream counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use prost::Message;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;

use super::stream::StreamEnd;

/// Type of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Url {
    url: String,
}

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What the stream counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    terminations: Family<Reason, Counter>,
    messages: Family<Url, Counter>,
    bytes: Family<Url, Counter>,
    refused: Family<Url, Counter>,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "xds_connection_terminations",
            "Streams to the control plane that ended or could not be opened",
            self.terminations.clone(),
        );
        registry.register("xds_message", "Responses received", self.messages.clone());
        registry.register(
            "xds_message_bytes",
            "Bytes of responses received",
            self.bytes.clone(),
        );
        registry.register(
            "xds_refused",
            "Resources that were not understood, and refused",
            self.refused.clone(),
        );
    }

    pub(super) fn received(&self, response: &DeltaDiscoveryResponse, refused: usize) {
        let url = Url {
            url: response.type_url.clone(),
        };
        self.messages.get_or_create(&url).inc();
        let bytes = u64::try_from(response.encoded_len()).unwrap_or(u64::MAX);
        self.bytes.get_or_create(&url).inc_by(bytes);
        let refused = u64::try_from(refused).unwrap_or(u64::MAX);
        self.refused.get_or_create(&url).inc_by(refused);
    }

    pub(super) fn ended(&self, end: &StreamEnd) {
        let reason = match end {
            StreamEnd::ControlPlane(_) => "connection_error",
            StreamEnd::Answer(..) => "error",
            StreamEnd::Closed => "complete",
            StreamEnd::NotTaken => "reset",
        };
        self.terminations.get_or_create(&Reason { reason }).inc();
    }
}
