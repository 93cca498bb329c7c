//! The control plane's end of the agent's stream: remembers what it was told, says what the test says.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use trefoil_api::proto::trefoil::v1::{
    AgentNotice, AgentReport, Plane, PodPlacement, WithdrawalAcknowledged, agent_notice::Notice,
};
use trefoil_cni::report::rpc::node_agent_service_server::{NodeAgentService, NodeAgentServiceServer};

pub const NAME: &str = "trefoil-control-plane.trefoil-system.svc";

#[derive(Clone, Default)]
struct Service {
    told: Arc<Mutex<BTreeMap<String, PodPlacement>>>,
    withdrawn: Arc<Mutex<Vec<String>>>,
    unanswered: Arc<Mutex<Option<Vec<String>>>>,
}

pub struct ControlPlane {
    pub address: String,
    service: Service,
}

impl ControlPlane {
    /// Listens, and writes the files that an agent needs to be believed.
    pub async fn start(folder: &Path) -> Self {
        let certified = rcgen::generate_simple_self_signed([NAME.to_string()]).unwrap();
        let certificate = certified.cert.pem();
        std::fs::write(folder.join("root-cert.pem"), &certificate).unwrap();
        std::fs::write(folder.join("token"), "the-token\n").unwrap();
        let identity = Identity::from_pem(certificate, certified.signing_key.serialize_pem());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let service = Service::default();
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(NodeAgentServiceServer::new(service.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Self { address, service }
    }

    /// What it was last told of a pod.
    pub fn plane(&self, uid: &str) -> Option<Plane> {
        let told = self.service.told.lock().unwrap();
        told.get(uid).map(PodPlacement::plane)
    }

    /// Uids of withdrawals that were asked for.
    pub fn withdrawn(&self) -> Vec<String> {
        self.service.withdrawn.lock().unwrap().clone()
    }

    /// Answers withdrawals from now on, with these peers unanswered.
    pub fn acknowledge(&self, unanswered: &[&str]) {
        let names = unanswered.iter().map(ToString::to_string).collect();
        *self.service.unanswered.lock().unwrap() = Some(names);
    }
}

#[tonic::async_trait]
impl NodeAgentService for Service {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<AgentNotice, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<AgentReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        if request.metadata().get("authorization").unwrap() != "Bearer the-token" {
            return Err(Status::unauthenticated("who is there?"));
        }
        let mut reports = request.into_inner();
        let (sender, receiver) = mpsc::unbounded_channel();
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                for notice in service.learn(report) {
                    sender.send(Ok(notice)).ok();
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }
}

impl Service {
    fn learn(&self, report: AgentReport) -> Vec<AgentNotice> {
        let mut told = self.told.lock().unwrap();
        if report.snapshot {
            told.clear();
        }
        for uid in report.removed {
            told.remove(&uid);
        }
        let mut notices = Vec::new();
        for pod in report.pods {
            if pod.withdrawing {
                self.withdrawn.lock().unwrap().push(pod.uid.clone());
                if let Some(unanswered) = self.unanswered.lock().unwrap().clone() {
                    let uid = pod.uid.clone();
                    let acknowledged = WithdrawalAcknowledged { uid, unanswered };
                    let notice = Some(Notice::WithdrawalAcknowledged(acknowledged));
                    notices.push(AgentNotice { notice });
                }
            }
            told.insert(pod.uid.clone(), pod);
        }
        notices
    }
}
