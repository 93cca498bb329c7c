//! What comes from the supervisor, one message after the other. Nothing here waits for anything but the
//! next message: whatever takes time is a task, or the supervisor could not be answered.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use futures::FutureExt;
use prost::Message;
use tokio::net::TcpListener;
use tower::ServiceExt;
use trefoil_api::Identity;
use trefoil_api::names::{port, workload_uid};
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use trefoil_api::proto::trefoil::worker::{
    AddPod, AdminRequest, AdminResponse, PodAdded, PodDrained, Resources, ToWorker, from_worker, to_worker,
};
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::proxy::{Pod, Proxy};
use trefoil_dataplane_dns::Dns;
use trefoil_dataplane_state::{Certificates, Store};
use trefoil_packets::PacketSocket;

use super::WorkerError;
use super::channel::Outbox;
use super::signer::ChannelSigner;
use super::sockets::{PodDialer, Pools};
use crate::sealed;

/// How long the pods of restored keys have to come back.
const RETURN: Duration = Duration::from_secs(60);
/// What of an admin answer goes into one packet.
const PIECE: usize = 64 * 1024;

/// The parts of a worker, as messages move them.
pub(super) struct Inbox {
    pub(super) pools: Arc<Pools>,
    pub(super) outbox: Outbox,
    pub(super) signer: Arc<ChannelSigner>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) store: Store,
    pub(super) proxy: Arc<Proxy>,
    pub(super) dns: Dns,
    pub(super) admin: Router,
    pub(super) drain: Drain,
    /// Kubernetes uids of the pods served now: one may be added again while it still drains.
    pub(super) served: Arc<Mutex<HashSet<String>>>,
}

impl Inbox {
    /// Does what it is told until the supervisor goes away or has it drained.
    pub(super) async fn run(self, socket: &PacketSocket) -> Result<(), WorkerError> {
        let mut drained = None;
        loop {
            let received = tokio::select! {
                received = socket.receive::<ToWorker>() => received?,
                () = until(&mut drained) => return Ok(()),
            };
            let Some((message, descriptors)) = received else {
                return Ok(());
            };
            let payload = message
                .payload
                .ok_or(WorkerError::Protocol("a message without content"))?;
            if let to_worker::Payload::Drain(order) = payload {
                let drain = self.drain.clone();
                let deadline = Duration::from_millis(order.deadline_milliseconds);
                drained = Some(tokio::spawn(async move {
                    let result = drain.drain(deadline).await;
                    tracing::info!(?result, "drained");
                }));
                continue;
            }
            self.handle(payload, descriptors)?;
        }
    }

    fn handle(&self, payload: to_worker::Payload, descriptors: Vec<OwnedFd>) -> Result<(), WorkerError> {
        match payload {
            to_worker::Payload::AddPod(add) => self.add(add, descriptors),
            to_worker::Payload::RemovePod(remove) => self.remove(remove.uid),
            to_worker::Payload::Sockets(sockets) => self.pools.arrived(&sockets, descriptors),
            to_worker::Payload::Signed(signed) => self.signer.signed(signed),
            to_worker::Payload::Resources(resources) => self.learn(resources, &descriptors)?,
            to_worker::Payload::Admin(question) => self.answer(question),
            to_worker::Payload::RestoreKeys(_) => self.restore(&descriptors),
            to_worker::Payload::Drain(_) => {}
        }
        Ok(())
    }

    fn add(&self, add: AddPod, listeners: Vec<OwnedFd>) {
        let uid = add.uid.clone();
        let error = match self.pod(add, listeners) {
            Ok(pod) => {
                self.served().insert(uid.clone());
                self.proxy.add_pod(pod);
                String::new()
            }
            Err(error) => error.to_string(),
        };
        self.outbox
            .send(from_worker::Payload::PodAdded(PodAdded { uid, error }));
    }

    fn pod(&self, add: AddPod, mut listeners: Vec<OwnedFd>) -> io::Result<Pod> {
        let datagrams = listeners.split_off(add.listeners.len().min(listeners.len()));
        let identity = Identity::new(&add.trust_domain, &add.namespace, &add.service_account);
        let identity = identity.map_err(io::Error::other)?;
        let (mut outbound, mut inbound, mut hbone, mut dns) = (None, None, None, None);
        for (number, listener) in add.listeners.iter().zip(listeners) {
            let listener = std::net::TcpListener::from(listener);
            listener.set_nonblocking(true)?;
            let listener = Some(TcpListener::from_std(listener)?);
            match u16::try_from(*number) {
                Ok(port::OUTBOUND) => outbound = listener,
                Ok(port::INBOUND) => inbound = listener,
                Ok(port::HBONE) => hbone = listener,
                Ok(port::DNS) => dns = listener,
                _ => return Err(io::Error::other(format!("no use for a listener on {number}"))),
            }
        }
        let missing = |what: &str| io::Error::other(format!("no listener for {what}"));
        // Sockets of an earlier pod of this uid may be of another namespace.
        self.pools.renew(&add.uid, add.generation);
        self.signer.add(&add.uid, identity.clone());
        let dialer = Arc::new(PodDialer {
            uid: add.uid.clone(),
            generation: add.generation,
            pools: Arc::clone(&self.pools),
        });
        if let (Some(streams), Some(datagrams)) = (dns, datagrams.into_iter().next()) {
            let taken = self.dns.add_pod(trefoil_dataplane_dns::Pod {
                uid: add.uid.clone(),
                namespace: add.namespace.clone(),
                name: add.name.clone(),
                datagrams: datagrams.into(),
                streams,
                sockets: Arc::clone(&dialer) as Arc<_>,
            });
            if let Err(error) = taken {
                tracing::warn!(pod = add.name, %error, "a pod's DNS queries are not answered here");
            }
        }
        Ok(Pod {
            workload_uid: workload_uid(&add.namespace, &add.name),
            identity,
            outbound: outbound.ok_or_else(|| missing("outbound"))?,
            inbound: inbound.ok_or_else(|| missing("inbound"))?,
            hbone: hbone.ok_or_else(|| missing("HBONE"))?,
            dialer,
            uid: add.uid,
            namespace: add.namespace,
            name: add.name,
        })
    }

    fn served(&self) -> MutexGuard<'_, HashSet<String>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, uid: String) {
        self.served().remove(&uid);
        self.dns.remove_pod(&uid);
        let served = Arc::clone(&self.served);
        let (proxy, outbox) = (Arc::clone(&self.proxy), self.outbox.clone());
        let (signer, pools) = (Arc::clone(&self.signer), Arc::clone(&self.pools));
        let mut removal = Box::pin(async move {
            proxy.remove_pod(&uid).await;
            // It may have come back meanwhile: then its keys and sockets stay.
            let back = served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&uid);
            if !back {
                pools.forget(&uid);
                signer.remove(&uid);
            }
            outbox.send(from_worker::Payload::PodDrained(PodDrained { uid }));
        });
        // Begun here and now: the next message may bring the same pod back, and that one is not to go.
        if removal.as_mut().now_or_never().is_none() {
            tokio::spawn(removal);
        }
    }

    fn learn(&self, resources: Resources, descriptors: &[OwnedFd]) -> Result<(), WorkerError> {
        let response = match (resources.response, descriptors) {
            (Some(response), []) => response,
            (None, [file]) => {
                let content = sealed::open(file)?;
                let decoded = DeltaDiscoveryResponse::decode(content.as_slice());
                decoded.map_err(|_| WorkerError::Protocol("resources that cannot be read"))?
            }
            _ => return Err(WorkerError::Protocol("neither resources nor a file of them")),
        };
        for refusal in self.store.apply(&response) {
            tracing::warn!(%refusal, "refused");
        }
        Ok(())
    }

    fn restore(&self, descriptors: &[OwnedFd]) {
        for file in descriptors {
            let restored = sealed::open(file)
                .map_err(|error| error.to_string())
                .and_then(|keys| self.certificates.import(&keys).map_err(|error| error.to_string()));
            match restored {
                Ok(count) => {
                    tracing::info!(count, "keys restored");
                    tokio::spawn(drop_orphans(
                        Arc::clone(&self.certificates),
                        Arc::clone(&self.signer),
                    ));
                }
                Err(error) => tracing::warn!(error, "keys are not restored; new ones are made"),
            }
        }
    }

    fn answer(&self, question: AdminRequest) {
        let (admin, outbox) = (self.admin.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let request = question.request;
            let (status, body) = ask(admin, question).await;
            let mut rest = body.as_slice();
            loop {
                let (piece, after) = rest.split_at(rest.len().min(PIECE));
                outbox.send(from_worker::Payload::Admin(AdminResponse {
                    request,
                    status,
                    body: piece.to_vec().into(),
                    last: after.is_empty(),
                }));
                if after.is_empty() {
                    return;
                }
                rest = after;
            }
        });
    }
}

/// Pods may have gone while nobody served them: their keys go too, once all that remain have come back.
async fn drop_orphans(certificates: Arc<Certificates>, signer: Arc<ChannelSigner>) {
    tokio::time::sleep(RETURN).await;
    for summary in certificates.summaries() {
        if let Ok(identity) = summary.identity.parse()
            && !signer.serves(&identity)
        {
            certificates.forget(&identity);
        }
    }
}

async fn ask(admin: Router, question: AdminRequest) -> (u32, Vec<u8>) {
    let (Ok(path), Ok(method)) = (question.path.parse(), question.method.parse::<Method>()) else {
        return (400, Vec::new());
    };
    let mut request = Request::new(Body::from(question.body));
    *request.method_mut() = method;
    *request.uri_mut() = path;
    let response = match admin.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = u32::from(response.status().as_u16());
    let body = to_bytes(response.into_body(), usize::MAX).await;
    (status, body.map(Into::into).unwrap_or_default())
}

/// Resolves once a task has ended; never where there is none.
async fn until(task: &mut Option<tokio::task::JoinHandle<()>>) {
    match task {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}
