//! The gRPC stream of a client: requests to its session, its session's responses out.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, Node};

use super::body::Responses;
use super::hub::{Client, Hub, Who};
use super::turns::{Sending, Turn};
use super::{Event, Response};
use crate::serve::callers::{Caller, Callers};
use crate::serve::metrics::{Metrics, TypeLabel};
use trefoil_control_plane_index::snapshot::ResourceKind;

/// How long workloads wait for a client to ask for the policies too, and removals of policies for it to ask for
/// workloads.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a client may take to say what it wants, once its turn has come: its first request names all that it holds.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// The discovery service.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// Where changes come from.
    pub hub: Arc<Hub>,
    /// Who may ask.
    pub callers: Arc<Callers>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Ends all streams.
    pub stop: CancellationToken,
}

impl Discovery {
    /// Begins a client's stream.
    pub(super) async fn open(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Responses, Status> {
        let caller = self.callers.authenticate(&request, "discovery").await?;
        let peer = request
            .remote_addr()
            .map_or_else(String::new, |peer| peer.to_string());
        let mut requests = request.into_inner();
        let reading = self.hub.turns.to_be_read().await;
        let first = tokio::select! {
            first = timeout(FIRST_REQUEST, requests.next()) => {
                first.map_err(|_| Status::deadline_exceeded("no request came"))?
            }
            () = self.stop.cancelled() => None,
        };
        let Some(first) = first.transpose()? else {
            return Ok(Responses::new(mpsc::channel(1).1));
        };
        let client = self.hub.connect(who(&caller, first.node.as_ref(), peer));
        // One response of each type at most is on its way, so that sending never waits.
        let (sender, receiver) = mpsc::channel(ResourceKind::ALL.len());
        let stream = ClientStream {
            service: self.clone(),
            client,
            sender,
        };
        tokio::spawn(stream.run(first, requests, reading));
        Ok(Responses::new(receiver))
    }
}

/// Whose token it is, and what it says of itself.
fn who(caller: &Caller, node: Option<&Node>, peer: String) -> Who {
    let id = node.map_or("", |node| node.id.as_str());
    Who {
        client: format!("{caller} {id}").trim_end().to_owned(),
        peer,
        role: id.split('~').next().unwrap_or_default().to_owned(),
        pod: caller
            .pod
            .as_ref()
            .map(|pod| format!("{}/{}", caller.namespace, pod.name)),
        node: caller.node.clone(),
        version: node.map_or_else(String::new, |node| node.build_version.clone()),
    }
}

struct ClientStream {
    service: Discovery,
    client: Arc<Client>,
    sender: mpsc::Sender<Response>,
}

impl ClientStream {
    async fn run(
        self,
        first: DeltaDiscoveryRequest,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        reading: Turn,
    ) {
        tracing::info!(client = self.client.name(), "discovery client connected");
        self.service.metrics.clients.inc();
        self.client.session().set_roomy(false);
        let mut reading = Some(reading);
        let mut sending = Sending::default();
        self.take(first, &mut reading, &mut sending);
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        let mut patient = true;
        let synced = self.service.hub.synced();
        tokio::pin!(synced);
        let mut is_synced = self.service.hub.is_synced();
        let reason = loop {
            if is_synced && self.send_due(&mut sending).is_err() {
                break "it went away";
            }
            tokio::select! {
                () = self.service.stop.cancelled() => break "this process ends",
                () = &mut synced, if !is_synced => is_synced = true,
                () = &mut patience, if patient => {
                    patient = false;
                    self.client.session().lose_patience();
                }
                () = self.client.wake.notified() => {}
                () = sending.comes() => self.client.session().set_roomy(true),
                request = requests.next() => match request {
                    Some(Ok(request)) => self.take(request, &mut reading, &mut sending),
                    Some(Err(_)) | None => break "it went away",
                },
            }
        };
        self.service.hub.disconnect(&self.client);
        self.service.metrics.clients.dec();
        tracing::info!(
            client = self.client.name(),
            reason,
            "discovery client disconnected"
        );
    }

    fn take(&self, request: DeltaDiscoveryRequest, reading: &mut Option<Turn>, sending: &mut Sending) {
        let kind = ResourceKind::of(&request.type_url);
        let event = {
            // Under the lock: a change that is noted from here on is in the snapshot.
            let mut session = self.client.session();
            let event = session.request(request, &self.service.hub.snapshot());
            self.client.note_standing(&session);
            if !session.awaits_answer() && sending.end() {
                session.set_roomy(false);
            }
            event
        };
        if kind == Some(ResourceKind::Address) {
            // It has said all that it holds.
            *reading = None;
        }
        let metrics = &self.service.metrics;
        match (event, kind) {
            (Event::Acknowledged, Some(kind)) => {
                metrics.acknowledged.get_or_create(&TypeLabel::of(kind)).inc();
                self.client.acknowledged(kind);
                self.service.hub.note_answer();
            }
            (Event::Refused(message), Some(kind)) => {
                metrics.refused.get_or_create(&TypeLabel::of(kind)).inc();
                self.service.hub.note_answer();
                tracing::warn!(client = self.client.name(), %message, "discovery client refused resources");
            }
            (Event::UnknownType(type_url), _) => {
                tracing::debug!(client = self.client.name(), %type_url, "asked for a type that is not served");
            }
            _ => {}
        }
    }

    /// Sends what is due, but for what is to wait for its turn. Errors when the client is gone.
    fn send_due(&self, sending: &mut Sending) -> Result<(), ()> {
        loop {
            let (due, waits) = {
                // Under the lock: every change that was noted is in the snapshot.
                let mut session = self.client.session();
                let snapshot = self.service.hub.snapshot();
                let due = session.next(&snapshot);
                self.client.note_standing(&session);
                (due, session.room(&snapshot))
            };
            let Some(response) = due else {
                if waits > 0 {
                    sending.want(&self.service.hub.turns, waits);
                }
                return Ok(());
            };
            let label = TypeLabel::of(response.kind);
            self.service.metrics.pushes.get_or_create(&label).inc();
            // Never full: there is room for one response of each type.
            self.sender.try_send(response).map_err(drop)?;
        }
    }
}
