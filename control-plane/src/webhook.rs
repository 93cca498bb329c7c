//! Admission: pods that are to have a sidecar get one; pods that would pass by the mesh, and objects that
//! cannot be understood, are refused.

pub mod inject;
pub mod overrides;
mod reserved;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Json;
use axum::routing::post;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use trefoil_api::exclusions::Exclusions;
use trefoil_api::plane::{PodFacts, wants_sidecar};

use crate::serve::certificates::Mesh;
use crate::serve::metrics::Metrics;
use overrides::Overrides;
use trefoil_control_plane_index::facts::Labels;

/// The largest review.
const REVIEW_BYTES: usize = 8 << 20;
/// How long the API is waited for: shorter than it waits for the answer.
const ASKING: Duration = Duration::from_secs(3);

/// What admission is decided by.
#[derive(Clone)]
pub struct Webhook {
    /// Asked about namespaces.
    pub client: Client,
    /// The mesh configuration.
    pub mesh: watch::Receiver<Arc<Mesh>>,
    /// The image of sidecars.
    pub sidecar_image: String,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// Why an object is not admitted.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It has to be corrected.
    #[error("{0}")]
    Invalid(String),
    /// What it is decided by is not known: its owner tries again.
    #[error("{0}; try again")]
    NotNow(String),
}

/// Serves connections until told to stop.
pub async fn serve(
    webhook: Webhook,
    mut connections: mpsc::Receiver<io::Result<TlsStream<TcpStream>>>,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/inject", post(inject_review))
        .route("/validate", post(validate_review))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES))
        .with_state(webhook);
    while let Some(Some(connection)) = stop.run_until_cancelled(connections.recv()).await {
        let Ok(stream) = connection else { continue };
        let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a webhook connection failed");
            }
        }));
    }
}

async fn inject_review(State(webhook): State<Webhook>, Json(review): Json<Value>) -> Json<Value> {
    let request = &review["request"];
    let outcome = webhook.inject(request).await;
    let mut response = json!({"uid": request["uid"], "allowed": true});
    match outcome {
        Ok(Some(patch)) => {
            use base64::Engine;
            webhook.metrics.injected.inc();
            let patch = serde_json::to_vec(&patch).unwrap_or_default();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch).into();
        }
        Ok(None) => {}
        Err(refusal) => {
            webhook.metrics.denied.inc();
            response = denied(request, &refusal);
        }
    }
    answer(response)
}

async fn validate_review(State(webhook): State<Webhook>, Json(review): Json<Value>) -> Json<Value> {
    let request = &review["request"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, kind) = (text(&request["kind"]["group"]), text(&request["kind"]["kind"]));
    let outcome = if request["operation"] == "DELETE" {
        Ok(())
    } else {
        trefoil_api::crd::validate(&group, &kind, &request["object"])
    };
    answer(match outcome {
        Ok(()) => json!({"uid": request["uid"], "allowed": true}),
        Err(errors) => {
            webhook.metrics.denied.inc();
            let faults: Vec<String> = errors.iter().map(ToString::to_string).collect();
            denied(request, &Refusal::Invalid(faults.join("; ")))
        }
    })
}

fn denied(request: &Value, refusal: &Refusal) -> Value {
    let (reason, code) = match refusal {
        Refusal::Invalid(_) => ("Invalid", 422),
        Refusal::NotNow(_) => ("ServiceUnavailable", 503),
    };
    json!({
        "uid": request["uid"],
        "allowed": false,
        "status": {"status": "Failure", "reason": reason, "code": code, "message": refusal.to_string()},
    })
}

fn answer(response: Value) -> Json<Value> {
    Json(json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": response,
    }))
}

impl Webhook {
    /// The patch that gives a pod its sidecar, if it is to have one.
    async fn inject(&self, request: &Value) -> Result<Option<json_patch::Patch>, Refusal> {
        let invalid = |error: &dyn fmt::Display| Refusal::Invalid(error.to_string());
        let pod: Pod = serde_json::from_value(request["object"].clone()).map_err(|error| invalid(&error))?;
        let namespace = request["namespace"].as_str().unwrap_or_default();
        let labels = self.labels(namespace).await?;
        let mesh = self.mesh.borrow().clone();
        let facts = PodFacts {
            namespace,
            namespace_labels: Some(&labels),
            labels: pod.metadata.labels.as_ref(),
            host_network: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.host_network)
                .unwrap_or(false),
            has_sidecar: inject::has_sidecar(&pod),
        };
        let wanted = wants_sidecar(&facts, mesh.config.pod_overrides).map_err(|error| invalid(&error))?;
        let annotations = pod.metadata.annotations.as_ref();
        let overrides = Overrides::read(annotations).map_err(|error| invalid(&error))?;
        // The agent reads them, too late to tell the pod's owner.
        Exclusions::read(annotations).map_err(|error| invalid(&error))?;
        let config = inject::Config {
            image: &self.sidecar_image,
            trust_domain: &mesh.trust_domain,
            namespace,
            overrides: &overrides,
        };
        reserved::check(&pod, &config).map_err(Refusal::Invalid)?;
        if !wanted || facts.has_sidecar {
            return Ok(None);
        }
        Ok(Some(inject::inject(&pod, &config)))
    }

    /// The labels of a namespace as they are now: by those of a moment ago a pod would be without a sidecar for
    /// the rest of its life.
    async fn labels(&self, name: &str) -> Result<Labels, Refusal> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let asked = tokio::time::timeout(ASKING, namespaces.get_opt(name)).await;
        let not_now = |why: &dyn fmt::Display| {
            Refusal::NotNow(format!(
                "whether namespace {name} asks for sidecars is not known: {why}"
            ))
        };
        match asked {
            Ok(Ok(Some(namespace))) => Ok(namespace.metadata.labels.unwrap_or_default()),
            Ok(Ok(None)) => Err(not_now(&"it does not exist")),
            Ok(Err(error)) => Err(not_now(&error)),
            Err(elapsed) => Err(not_now(&elapsed)),
        }
    }
}
