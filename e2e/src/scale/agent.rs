//! The stream of a node's agent: says what redirects the pods of its node, and comes again with the same.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use trefoil_api::proto::trefoil::v1::{AgentNotice, AgentReport, Plane, PodPlacement};

const METHOD: &str = "/trefoil.v1.NodeAgentService/Report";
const PAUSE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Agent {
    /// The value of its `authorization` header.
    pub authorization: MetadataValue<Ascii>,
    /// The pods of its node: namespace, name and uid.
    pub pods: Vec<(String, String, String)>,
}

impl Agent {
    /// Connects, and connects again whenever the stream ends. Cancel it by dropping it.
    pub async fn run(self: Arc<Self>, endpoint: Endpoint) {
        loop {
            // Whether reports reach the control plane is seen in what it serves.
            let _ = self.stream(&endpoint).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn stream(&self, endpoint: &Endpoint) -> anyhow::Result<()> {
        let channel = endpoint.connect().await?;
        let (reports, outgoing) = mpsc::channel(1);
        reports.send(self.report()).await?;
        let outgoing = stream::unfold(outgoing, |mut outgoing: mpsc::Receiver<AgentReport>| async {
            outgoing.recv().await.map(|report| (report, outgoing))
        });
        let mut call = tonic::Request::new(outgoing);
        call.metadata_mut()
            .insert("authorization", self.authorization.clone());
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await?;
        let codec = ProstCodec::<AgentReport, AgentNotice>::default();
        let answer = client.streaming(call, PathAndQuery::from_static(METHOD), codec);
        let mut notices = answer.await?.into_inner();
        while notices.message().await?.is_some() {}
        drop(reports);
        Ok(())
    }

    fn report(&self) -> AgentReport {
        let pods = self.pods.iter().map(|(namespace, name, uid)| PodPlacement {
            uid: uid.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            plane: Plane::Node.into(),
            withdrawing: false,
        });
        AgentReport {
            pods: pods.collect(),
            snapshot: true,
            removed: Vec::new(),
        }
    }
}
