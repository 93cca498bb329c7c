//! Counters, by names that stay.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use trefoil_control_plane_index::snapshot::ResourceKind;

/// A resource type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    /// Such as `address` or `authorization`.
    r#type: &'static str,
}

impl TypeLabel {
    /// Of a kind.
    #[must_use]
    pub fn of(kind: ResourceKind) -> Self {
        Self { r#type: kind.label() }
    }
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// In one word.
    pub reason: &'static str,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Discovery clients.
    pub clients: Gauge,
    /// Discovery responses sent.
    pub pushes: Family<TypeLabel, Counter>,
    /// Discovery responses taken.
    pub acknowledged: Family<TypeLabel, Counter>,
    /// Discovery responses refused.
    pub refused: Family<TypeLabel, Counter>,
    /// Resources encoded.
    pub encoded: Family<TypeLabel, Counter>,
    /// Resources served.
    pub resources: Family<TypeLabel, Gauge>,
    /// Certificates signed.
    pub signed: Counter,
    /// Certificates not signed.
    pub not_signed: Family<ReasonLabel, Counter>,
    /// Callers turned away.
    pub unauthenticated: Family<ReasonLabel, Counter>,
    /// Tokens reviewed by the API server.
    pub token_reviews: Counter,
    /// Agents connected.
    pub agents: Gauge,
    /// Pods given a sidecar.
    pub injected: Counter,
    /// Objects refused at admission.
    pub denied: Counter,
}

impl Metrics {
    /// A registry that shows them.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("trefoil_control_plane");
        registry.register("xds_clients", "Discovery clients connected", self.clients.clone());
        registry.register("xds_pushes", "Discovery responses sent", self.pushes.clone());
        registry.register("xds_acks", "Discovery responses taken", self.acknowledged.clone());
        registry.register("xds_nacks", "Discovery responses refused", self.refused.clone());
        registry.register("resources", "Resources served", self.resources.clone());
        registry.register(
            "resources_encoded",
            "Resources encoded, each once for all clients",
            self.encoded.clone(),
        );
        registry.register("certificates_signed", "Certificates signed", self.signed.clone());
        registry.register(
            "certificates_refused",
            "Certificates refused, by reason",
            self.not_signed.clone(),
        );
        registry.register(
            "callers_refused",
            "Callers turned away, by reason",
            self.unauthenticated.clone(),
        );
        registry.register("token_reviews", "Tokens reviewed", self.token_reviews.clone());
        registry.register("agents", "Node agents connected", self.agents.clone());
        registry.register("sidecars_injected", "Pods given a sidecar", self.injected.clone());
        registry.register(
            "admission_denied",
            "Objects refused at admission",
            self.denied.clone(),
        );
        registry
    }
}
