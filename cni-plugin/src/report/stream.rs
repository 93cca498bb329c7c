//! The stream to one replica: connects, says everything, then what changed, until it breaks; then again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use trefoil_api::proto::trefoil::v1::{AgentNotice, agent_notice::Notice};

use super::rpc::node_agent_service_client::NodeAgentServiceClient;
use super::{Reports, Told};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where the control plane is and how it is recognised.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// `https://HOST:PORT`; each address of each host is a replica.
    pub addresses: Vec<String>,
    /// The name in its certificate.
    pub name: String,
    /// File with the token that authenticates the agent, read anew for each connection.
    pub token: PathBuf,
    /// File with the root certificates, read anew for each connection.
    pub root: PathBuf,
}

/// Why the stream is down.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The token or root certificate cannot be read.
    #[error("control plane: {file}: {error}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        error: std::io::Error,
    },
    /// The token has characters that no token has.
    #[error("control plane: the token is not text")]
    Token,
    /// It is not known where the control plane is.
    #[error("control plane: {0} is no https://HOST:PORT")]
    Address(String),
    /// The same, for now.
    #[error("control plane: {name}: {error}")]
    Name {
        /// The host.
        name: String,
        /// Why it has no address.
        error: std::io::Error,
    },
    /// No connection.
    #[error("control plane: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The control plane refused or the stream broke.
    #[error("control plane: {}: {}", .0.code(), .0.message())]
    Refused(#[from] tonic::Status),
}

/// Keeps the stream up for as long as the replica is one.
pub(super) async fn run(
    reports: &Reports,
    control_plane: &ControlPlane,
    replica: SocketAddr,
    known: &watch::Receiver<BTreeSet<SocketAddr>>,
) {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let ended = converse(reports, control_plane, replica).await;
        if reports.turn(replica, false) {
            pause = FIRST_PAUSE;
            said.clear();
        }
        let reason = match ended {
            Ok(()) => "control plane: closed the stream".to_string(),
            Err(error) => error.to_string(),
        };
        // Said once, not with every attempt.
        if said != reason {
            tracing::warn!(%replica, %reason, "not reporting; trying again");
            said = reason;
        }
        tokio::time::sleep(pause).await;
        if !known.borrow().contains(&replica) {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn converse(
    reports: &Reports,
    control_plane: &ControlPlane,
    replica: SocketAddr,
) -> Result<(), ReportError> {
    let root = Certificate::from_pem(read(&control_plane.root)?);
    let tls = ClientTlsConfig::new()
        .ca_certificate(root)
        .domain_name(&control_plane.name);
    let channel = Endpoint::from_shared(format!("https://{replica}"))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .tls_config(tls)?
        .connect()
        .await?;
    let token = String::from_utf8(read(&control_plane.token)?).map_err(|_| ReportError::Token)?;
    let bearer: AsciiMetadataValue = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| ReportError::Token)?;
    let (sender, receiver) = mpsc::channel(1);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("authorization", bearer);

    let mut changes = reports.changes.subscribe();
    let mut told = Told::default();
    changes.mark_unchanged();
    // The first report goes before the answer's headers: a server may wait for it.
    if let Some(report) = told.next(reports.placements()) {
        sender.send(report).await.ok();
    }
    let mut client = NodeAgentServiceClient::new(channel);
    let mut notices = client.report(request).await?.into_inner();
    reports.turn(replica, true);
    tracing::info!(%replica, "reporting to the control plane");
    loop {
        tokio::select! {
            notice = notices.message() => match notice? {
                Some(notice) => heard(reports, replica, notice),
                None => return Ok(()),
            },
            changed = changes.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                if let Some(report) = told.next(reports.placements())
                    && sender.send(report).await.is_err()
                {
                    return Ok(());
                }
            }
        }
    }
}

fn heard(reports: &Reports, replica: SocketAddr, notice: AgentNotice) {
    match notice.notice {
        Some(Notice::WithdrawalAcknowledged(acknowledged)) => {
            reports.acknowledge(&acknowledged.uid, replica, acknowledged.unanswered);
        }
        None => tracing::debug!("a notice of a newer control plane"),
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, ReportError> {
    std::fs::read(path).map_err(|error| ReportError::File {
        file: path.display().to_string(),
        error,
    })
}
