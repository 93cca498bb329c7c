//! The stream of a node's agent: what redirects which pod of its node goes into the index; when it is about
//! to withdraw one, it is told once peers know. The node is the token's, never a message's.

mod presence;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use trefoil_api::names::{MESH_NAMESPACE, workload_uid};
use trefoil_api::proto::trefoil::v1::agent_notice::Notice;
use trefoil_api::proto::trefoil::v1::{AgentNotice, AgentReport, WithdrawalAcknowledged};

use super::callers::Callers;
use super::metrics::Metrics;
use super::stubs::trefoil::v1::node_agent_service_server::NodeAgentService;
use super::xds::Hub;
use crate::objects::Objects;
pub use presence::Presence;
use trefoil_control_plane_index::{Change, NodePlacements};

/// How long peers are waited for.
const WITHDRAWAL: Duration = Duration::from_secs(5);
/// How long what an agent said outlives its stream.
pub const ABSENCE: Duration = Duration::from_secs(30);
/// The account of agents.
const ACCOUNT: &str = "trefoil-cni";

/// The service. See the module.
#[derive(Clone, Debug)]
pub struct Agents {
    /// Who may report.
    pub callers: Arc<Callers>,
    /// Where reports go.
    pub objects: Objects,
    /// Knows which clients have taken what.
    pub hub: Arc<Hub>,
    /// Which agents are connected.
    pub presence: Arc<Presence>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Ends all streams.
    pub stop: CancellationToken,
}

type Notices = mpsc::Sender<Result<AgentNotice, Status>>;

#[tonic::async_trait]
impl NodeAgentService for Agents {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<AgentNotice, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<AgentReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let caller = self.callers.authenticate(&request, "agent").await?;
        if (caller.namespace.as_str(), caller.service_account.as_str()) != (MESH_NAMESPACE, ACCOUNT) {
            tracing::warn!(%caller, "not an agent");
            return Err(Status::permission_denied(format!("{caller} is not a node agent")));
        }
        let node = match (&caller.node, &caller.pod) {
            (Some(node), _) => node.clone(),
            (None, Some(pod)) => self
                .objects
                .node_of(MESH_NAMESPACE, &pod.name, &pod.uid)
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?
                .ok_or_else(|| Status::permission_denied("the agent's pod is on no node"))?,
            (None, None) => {
                return Err(Status::permission_denied("the agent's token is bound to no pod"));
            }
        };
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(self.clone().run(node, request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Agents {
    async fn run(self, node: String, mut reports: Streaming<AgentReport>, notices: Notices) {
        tracing::info!(%node, "agent connected");
        self.metrics.agents.inc();
        self.presence.arrived(&node).await;
        loop {
            let report = tokio::select! {
                () = self.stop.cancelled() => break,
                report = reports.next() => report,
            };
            let Some(Ok(report)) = report else { break };
            let withdrawing: Vec<_> = report
                .pods
                .iter()
                .filter(|pod| pod.withdrawing)
                .map(|pod| (pod.uid.clone(), workload_uid(&pod.namespace, &pod.name)))
                .collect();
            let placements = NodePlacements {
                node: node.clone(),
                snapshot: report.snapshot,
                pods: report.pods,
                removed: report.removed,
            };
            if !self.objects.apply(vec![Change::Placements(placements)]).await {
                break;
            }
            if !withdrawing.is_empty() {
                tokio::spawn(acknowledge(self.hub.clone(), withdrawing, notices.clone()));
            }
        }
        self.metrics.agents.dec();
        tracing::info!(%node, "agent disconnected");
        // Ends the response, too.
        drop((reports, notices));
        let departure = self.presence.left(&node).await;
        let forget = async {
            tracing::warn!(%node, "its agent stays away: what is written on its pods holds");
            // False when this process ends: then it is forgotten anyway.
            let _ = self
                .objects
                .apply(vec![Change::PlacementsForgotten(node.clone())])
                .await;
        };
        let waiting = self.presence.forget_unless_back(departure, forget);
        let _ = self.stop.run_until_cancelled(waiting).await;
    }
}

/// Tells the agent once peers know, or who did not answer in time.
async fn acknowledge(hub: Arc<Hub>, withdrawing: Vec<(String, String)>, notices: Notices) {
    let names: Vec<String> = withdrawing.iter().map(|(_, name)| name.clone()).collect();
    let mut owing = hub.taken(&names, WITHDRAWAL).await;
    for (uid, name) in withdrawing {
        let unanswered = owing.remove(&name).unwrap_or_default();
        let notice = AgentNotice {
            notice: Some(Notice::WithdrawalAcknowledged(WithdrawalAcknowledged {
                uid,
                unanswered,
            })),
        };
        if notices.send(Ok(notice)).await.is_err() {
            return;
        }
    }
}
