//! The agent's pod feed: strict request and response, one packet each. Whatever breaks the protocol is
//! answered with an error and ends the connection; what only fails is answered, and the agent comes again.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trefoil_api::proto::istio::workload::zds::{
    Ack, AddWorkload, Version, WorkloadRequest, WorkloadResponse, ZdsHello, workload_request,
    workload_response,
};
use trefoil_dataplane_process::readiness::{BlockReady, Readiness};
use trefoil_packets::{PacketError, PacketSocket};

use super::keeper::KeeperError;
use super::node::{Node, PodError, Stored};
use super::pod::Description;

/// The first pause before connecting again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest. The agent is on this very machine.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What of an error an agent can be expected to read: some read packets of 1024 bytes.
const LONGEST_ERROR: usize = 900;

/// The feed's client.
pub(crate) struct Feed {
    /// The agent's socket.
    pub path: PathBuf,
    /// What takes the pods.
    pub node: Arc<Node>,
    /// Blocked until the agent's first snapshot, and again while disconnected.
    pub readiness: Readiness,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("the agent is not there: {0}")]
    Away(std::io::Error),
    #[error("the agent closed the feed")]
    Closed,
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error("the agent broke the protocol: {0}")]
    Protocol(&'static str),
}

/// Why a message was not accepted.
enum Refusal {
    Failed(PodError),
    Protocol(&'static str),
}

impl From<PodError> for Refusal {
    fn from(error: PodError) -> Self {
        Self::Failed(error)
    }
}

/// One connection's state.
struct Session<'f> {
    node: &'f Node,
    named: HashSet<String>,
    /// Until the snapshot is complete.
    stored: Option<Stored>,
}

impl Feed {
    /// Follows the feed for as long as the process lives.
    pub(crate) async fn follow(self) {
        let mut pause = SHORTEST_PAUSE;
        let mut block = Some(self.readiness.block("pods: the agent's snapshot"));
        loop {
            let result = self.session(&mut block, &mut pause).await;
            if block.is_none() {
                block = Some(self.readiness.block("pods: the agent's feed"));
            }
            if let Err(error) = result {
                tracing::warn!(socket = %self.path.display(), %error, "pod feed ended");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn session(&self, block: &mut Option<BlockReady>, pause: &mut Duration) -> Result<(), FeedError> {
        if self.node.is_leaving() {
            // An agent that is new gets what this process holds, for its successor, and nobody else to give pods to.
            return Ok(self.node.connected().await.map(drop)?);
        }
        let socket = trefoil_packets::connect(&self.path)
            .await
            .map_err(FeedError::Away)?;
        let stored = self.node.connected().await?;
        let hello = ZdsHello {
            version: Version::V1.into(),
        };
        socket.send(&hello, &[]).await?;
        let mut session = Session {
            node: &self.node,
            named: HashSet::new(),
            stored: Some(stored),
        };
        loop {
            let received = socket.receive::<WorkloadRequest>().await?;
            let (request, descriptors) = received.ok_or(FeedError::Closed)?;
            match session.handle(request, descriptors).await {
                Ok(()) => acknowledge(&socket, String::new()).await?,
                Err(Refusal::Failed(error)) => {
                    tracing::warn!(%error, "a pod is not taken");
                    acknowledge(&socket, error.to_string()).await?;
                }
                Err(Refusal::Protocol(error)) => {
                    acknowledge(&socket, error.into()).await?;
                    return Err(FeedError::Protocol(error));
                }
            }
            if session.stored.is_none() && block.take().is_some() {
                tracing::info!(pods = self.node.count(), "pod feed: snapshot complete");
                *pause = SHORTEST_PAUSE;
            }
        }
    }
}

impl Session<'_> {
    async fn handle(
        &mut self,
        request: WorkloadRequest,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), Refusal> {
        let payload = request
            .payload
            .ok_or(Refusal::Protocol("a request without content"))?;
        let expected = usize::from(matches!(payload, workload_request::Payload::Add(_)));
        if descriptors.len() != expected {
            return Err(Refusal::Protocol(
                "an add has exactly one descriptor, anything else none",
            ));
        }
        match payload {
            workload_request::Payload::Add(add) => {
                let network = descriptors.remove(0);
                self.add(add, network).await
            }
            workload_request::Payload::Del(del) => {
                self.named.remove(&del.uid);
                Ok(self.node.remove(&del.uid).await?)
            }
            workload_request::Payload::Keep(keep) => {
                if self.stored.is_none() {
                    return Err(Refusal::Protocol("a keep after the snapshot"));
                }
                self.named.insert(keep.uid.clone());
                Ok(self.node.keep(&keep.uid)?)
            }
            workload_request::Payload::SnapshotSent(_) => {
                let stored = self.stored.take().ok_or(Refusal::Protocol("a second snapshot"))?;
                Ok(self.node.settle(&self.named, stored).await?)
            }
        }
    }

    async fn add(&mut self, add: AddWorkload, network: OwnedFd) -> Result<(), Refusal> {
        let information = add.workload_info;
        let information = information.ok_or(Refusal::Protocol("an add without workload_info"))?;
        // Also one that fails now was named: it is not dropped, the agent comes again with it.
        self.named.insert(add.uid.clone());
        let description = Description {
            uid: add.uid,
            name: information.name,
            namespace: information.namespace,
            service_account: information.service_account,
        };
        let mut none = Stored::default();
        let stored = self.stored.as_mut().unwrap_or(&mut none);
        Ok(self.node.add(description, network, stored).await?)
    }
}

async fn acknowledge(socket: &PacketSocket, mut error: String) -> Result<(), FeedError> {
    error.truncate(error.floor_char_boundary(LONGEST_ERROR));
    let payload = Some(workload_response::Payload::Ack(Ack { error }));
    Ok(socket.send(&WorkloadResponse { payload }, &[]).await?)
}
