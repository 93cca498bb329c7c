//! One stream: subscriptions, then responses, each answered.

use std::convert::Infallible;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trefoil_api::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status as Problem,
};

use super::stubs::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use super::{ControlPlaneError, Discovery};
use crate::state::Refusal;

/// Responses hold whole meshes at first.
const LARGEST_RESPONSE: usize = 200 << 20;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    #[error("the control plane answered {0}: {1}")]
    Answer(tonic::Code, String),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("nobody takes what is received any more")]
    NotTaken,
}

impl From<tonic::Status> for StreamEnd {
    fn from(status: tonic::Status) -> Self {
        Self::Answer(status.code(), status.message().to_owned())
    }
}

impl Discovery {
    /// Opens a stream and serves it until it ends.
    pub(super) async fn stream(&self) -> Result<Infallible, StreamEnd> {
        let channel = self.control_plane.connect().await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST_RESPONSE);
        let subscriptions = self.subscriptions();
        let (requests, outbound) = mpsc::channel(subscriptions.len() * 2);
        for request in subscriptions {
            requests.send(request).await.map_err(|_| StreamEnd::Closed)?;
        }
        let mut call = tonic::Request::new(ReceiverStream::new(outbound));
        let authorization = self.control_plane.authorization().await?;
        call.metadata_mut().insert("authorization", authorization);
        let mut responses = client.delta_aggregated_resources(call).await?.into_inner();
        self.status.send_modify(|status| {
            status.turn(true);
            status.failure = None;
        });
        tracing::info!(url = %self.control_plane.url, "connected to the control plane");
        while let Some(response) = responses.message().await? {
            let answer = self.take(response).await?;
            requests.send(answer).await.map_err(|_| StreamEnd::Closed)?;
        }
        Err(StreamEnd::Closed)
    }

    /// Everything of all types, and what is held already.
    fn subscriptions(&self) -> Vec<DeltaDiscoveryRequest> {
        let held = self.held.borrow();
        let types = self.store.types().into_iter();
        types
            .map(|type_url| DeltaDiscoveryRequest {
                node: Some(self.node.message()),
                type_url: type_url.into(),
                initial_resource_versions: held.versions(type_url),
                ..DeltaDiscoveryRequest::default()
            })
            .collect()
    }

    /// Applies a response and makes the answer to it.
    async fn take(&self, response: DeltaDiscoveryResponse) -> Result<DeltaDiscoveryRequest, StreamEnd> {
        let refusals = self.store.apply(&response);
        self.metrics.received(&response, refusals.len());
        for refusal in &refusals {
            tracing::warn!(%refusal, type_url = response.type_url, "refused");
        }
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: problem(&refusals),
            ..DeltaDiscoveryRequest::default()
        };
        self.status.send_modify(|status| {
            status.responses += 1;
            if !refusals.is_empty() {
                status.refused = refusals.iter().map(ToString::to_string).collect();
            }
        });
        if self.store.types().contains(&response.type_url.as_str()) {
            let mut taken = None;
            self.held
                .send_modify(|held| taken = Some(held.apply(response, &refusals)));
            if let (Some(updates), Some(taken)) = (&self.updates, taken) {
                updates.send(taken).await.map_err(|_| StreamEnd::NotTaken)?;
            }
        }
        Ok(answer)
    }
}

fn problem(refusals: &[Refusal]) -> Option<Problem> {
    if refusals.is_empty() {
        return None;
    }
    let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    Some(Problem {
        message: reasons.join("; "),
        ..Problem::default()
    })
}
