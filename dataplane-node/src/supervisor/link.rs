//! The channel to one worker process. What the worker asks for is granted or refused by what it was
//! assigned, never by what its message says. A worker that breaks the protocol is ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use trefoil_api::proto::trefoil::worker::{
    AdminRequest, Drain as DrainOrder, Family, FromWorker, NeedSockets, Resources as ResourcesMessage,
    RestoreKeys, Sign, Signed, Sockets, ToWorker, from_worker, to_worker,
};
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::certificates::Signer;
use trefoil_packets::{PacketError, PacketSocket};

use super::in_pod;
use super::keeper::{self, Keeper};
use super::namespace::Entrance;
use super::resources::{Pending, Resources};
use super::worker::Worker;
use crate::sealed;

#[cfg(test)]
mod tests;

/// Sockets that one request may ask for.
pub(crate) const LARGEST_BATCH: u32 = 64;
/// Signatures that one worker may await at once.
const SIGNATURES: usize = 64;
/// Answers that wait for a worker to read.
const QUEUE: usize = 64;
/// Up to here resources go into the packet itself, above into a sealed memory file beside it.
const INLINE: usize = 48 * 1024;

/// What links share.
#[derive(Clone)]
pub(crate) struct Grants {
    /// The way into pods' namespaces.
    pub entrance: Entrance,
    /// The agent's descriptor store.
    pub keeper: Arc<Keeper>,
    /// What workers are told of the mesh.
    pub resources: Arc<Resources>,
    /// The certificate authority.
    pub signer: Arc<dyn Signer>,
    /// The process is to end.
    pub drain: Drain,
    /// How long established connections then have, in milliseconds.
    pub drain_milliseconds: u64,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The worker closed its end: its process has ended, as a rule.
    #[error("the worker closed its channel")]
    Closed,
    /// The channel failed, or the worker does not speak the protocol.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// No memory file could be made.
    #[error("resources for the worker: {0}")]
    Memory(io::Error),
    /// A message without content, or with descriptors that do not belong to it.
    #[error("the worker broke the protocol: {0}")]
    Protocol(&'static str),
}

type Reply = (to_worker::Payload, Vec<OwnedFd>);

/// Serves a worker until its channel ends.
pub(crate) async fn serve(worker: &Arc<Worker>, grants: &Grants, socket: &PacketSocket) -> LinkError {
    let (replies, queue) = mpsc::channel(QUEUE);
    let (ask, questions) = mpsc::channel(QUEUE);
    worker.questions.connect(ask);
    let writer = Writer {
        worker,
        grants,
        socket,
        pending: grants.resources.follow(),
    };
    let reader = Reader {
        worker,
        grants,
        replies,
        signatures: Arc::new(Semaphore::new(SIGNATURES)),
    };
    let ended = tokio::select! {
        ended = writer.run(queue, questions) => ended,
        ended = reader.run(socket) => ended,
    };
    match ended {
        Err(error) => error,
        Ok(()) => LinkError::Closed,
    }
}

struct Writer<'l> {
    worker: &'l Worker,
    grants: &'l Grants,
    socket: &'l PacketSocket,
    pending: Arc<Pending>,
}

impl Writer<'_> {
    async fn run(
        &self,
        mut replies: mpsc::Receiver<Reply>,
        mut questions: mpsc::Receiver<AdminRequest>,
    ) -> Result<(), LinkError> {
        if let Some(keys) = self.worker.keys() {
            let restore = to_worker::Payload::RestoreKeys(RestoreKeys {});
            self.send(restore, &[keys.as_fd()]).await?;
        }
        self.give_orders().await?;
        let mut drain_told = false;
        loop {
            tokio::select! {
                biased;
                Some((payload, descriptors)) = replies.recv() => {
                    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    self.send(payload, &descriptors).await?;
                }
                () = self.worker.changed() => self.give_orders().await?,
                () = self.grants.drain.draining(), if !drain_told => {
                    drain_told = true;
                    let deadline_milliseconds = self.grants.drain_milliseconds;
                    self.send(to_worker::Payload::Drain(DrainOrder { deadline_milliseconds }), &[]).await?;
                }
                Some(question) = questions.recv() => {
                    self.send(to_worker::Payload::Admin(question), &[]).await?;
                }
                () = self.pending.changed() => self.tell_resources().await?,
            }
        }
    }

    async fn give_orders(&self) -> Result<(), LinkError> {
        for order in self.worker.orders() {
            let listeners = order.listeners_of.as_ref();
            let descriptors = listeners
                .map(|pod| pod.listener_descriptors())
                .unwrap_or_default();
            self.send(order.payload, &descriptors).await?;
        }
        Ok(())
    }

    async fn tell_resources(&self) -> Result<(), LinkError> {
        while let Some(response) = self.grants.resources.next(&self.pending) {
            let synced = self.grants.resources.complete();
            if response.encoded_len() <= INLINE {
                let response = Some(response);
                let message = ResourcesMessage { response, synced };
                self.send(to_worker::Payload::Resources(message), &[]).await?;
                continue;
            }
            let file = sealed::seal(&response.encode_to_vec()).map_err(LinkError::Memory)?;
            let response = None;
            let message = ResourcesMessage { response, synced };
            self.send(to_worker::Payload::Resources(message), &[file.as_fd()])
                .await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        payload: to_worker::Payload,
        descriptors: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let payload = Some(payload);
        Ok(self.socket.send(&ToWorker { payload }, descriptors).await?)
    }
}

struct Reader<'l> {
    worker: &'l Arc<Worker>,
    grants: &'l Grants,
    replies: mpsc::Sender<Reply>,
    signatures: Arc<Semaphore>,
}

impl Reader<'_> {
    async fn run(&self, socket: &PacketSocket) -> Result<(), LinkError> {
        loop {
            let received = socket.receive::<FromWorker>().await?;
            let Some((message, mut descriptors)) = received else {
                return Err(LinkError::Closed);
            };
            let payload = message
                .payload
                .ok_or(LinkError::Protocol("a message of no known kind"))?;
            let expected = usize::from(matches!(payload, from_worker::Payload::StoreKeys(_)));
            if descriptors.len() != expected {
                return Err(LinkError::Protocol(
                    "descriptors that do not belong to the message",
                ));
            }
            match payload {
                from_worker::Payload::NeedSockets(need) => self.make_sockets(need).await,
                from_worker::Payload::Sign(sign) => self.sign(sign).await,
                from_worker::Payload::StoreKeys(_) => self.store_keys(descriptors.remove(0)).await?,
                from_worker::Payload::PodAdded(added) => {
                    if !added.error.is_empty() {
                        tracing::error!(scope = %self.worker.scope, pod = added.uid, error = added.error, "a worker does not serve a pod");
                    }
                    self.worker.added(&added.uid, added.error);
                }
                from_worker::Payload::PodDrained(drained) => self.worker.drained(&drained.uid),
                from_worker::Payload::Admin(piece) => self.worker.questions.answered(piece),
                from_worker::Payload::Ready(ready) => self.worker.awaits(ready.pending),
            }
        }
    }

    async fn make_sockets(&self, need: NeedSockets) {
        let family = Family::try_from(need.family).unwrap_or_default();
        let (error, sockets) = match self.sockets(&need.pod_uid, family, need.count).await {
            Ok(sockets) => (String::new(), sockets),
            Err(error) => {
                tracing::warn!(scope = %self.worker.scope, pod = need.pod_uid, %error, "no sockets for a worker");
                (error.to_string(), Vec::new())
            }
        };
        let payload = to_worker::Payload::Sockets(Sockets {
            pod_uid: need.pod_uid,
            family: family.into(),
            error,
        });
        // The writer ends when the link does: then nobody awaits this.
        let _ = self.replies.send((payload, sockets)).await;
    }

    async fn sockets(&self, uid: &str, family: Family, count: u32) -> io::Result<Vec<OwnedFd>> {
        let assignment = self
            .worker
            .assignment(uid)
            .ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "not a pod of this worker"))?;
        let count = count.clamp(1, LARGEST_BATCH);
        let network = Arc::clone(&assignment.pod.network);
        let make = move || (0..count).map(|_| in_pod::dialing(family)).collect();
        self.grants.entrance.run(network, make).await
    }

    /// The identity is fixed here, by the assignment. The request's bytes go to the authority as they are:
    /// it takes the identity from us, not from them.
    async fn sign(&self, sign: Sign) {
        let request = sign.request;
        let identity = self
            .worker
            .assignment(&sign.pod_uid)
            .and_then(|assignment| assignment.identity());
        let Some(identity) = identity else {
            tracing::warn!(scope = %self.worker.scope, pod = sign.pod_uid, "a worker asked for a certificate outside its scope");
            return reply_signed(&self.replies, request, Err("not a pod of this worker".into())).await;
        };
        let Ok(permit) = Arc::clone(&self.signatures).try_acquire_owned() else {
            return reply_signed(&self.replies, request, Err("too many requests at once".into())).await;
        };
        let signer = Arc::clone(&self.grants.signer);
        let replies = self.replies.clone();
        tokio::spawn(async move {
            let signed = signer.sign(&identity, sign.csr).await;
            reply_signed(&replies, request, signed.map_err(|error| error.to_string())).await;
            drop(permit);
        });
    }

    async fn store_keys(&self, keys: OwnedFd) -> Result<(), LinkError> {
        if !sealed::is_sealed(&keys) {
            return Err(LinkError::Protocol("keys that are not in a sealed memory file"));
        }
        let keys = Arc::new(keys);
        self.worker.keep_keys(Arc::clone(&keys));
        let name = keeper::keys(&self.worker.scope.to_string());
        if let Err(error) = self.grants.keeper.put(&[(name, keys.as_fd())]).await {
            // They are put again when the agent is back.
            tracing::warn!(scope = %self.worker.scope, %error, "the keys of a worker are not stored");
        }
        Ok(())
    }
}

async fn reply_signed(replies: &mpsc::Sender<Reply>, request: u64, signed: Result<Vec<String>, String>) {
    let (cert_chain, error) = match signed {
        Ok(chain) => (chain, String::new()),
        Err(error) => (Vec::new(), error),
    };
    let signed = Signed {
        request,
        cert_chain,
        error,
    };
    let _ = replies
        .send((to_worker::Payload::Signed(signed), Vec::new()))
        .await;
}
