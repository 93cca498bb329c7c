//! What a worker asks for, and what it gets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use trefoil_api::proto::trefoil::worker::{
    Family, FromWorker, NeedSockets, Sign, Signed, Sockets, from_worker, to_worker,
};
use trefoil_packets::PacketSocket;

use super::super::counters::Asked;
use super::super::worker::Worker;
use super::super::{in_pod, keeper};
use super::{FOREIGN, Grants, LARGEST_BATCH, LinkError, REPLACED, Reply};
use crate::sealed;

/// Grants or refuses, message after message.
pub(super) struct Reader<'l> {
    pub(super) worker: &'l Arc<Worker>,
    pub(super) grants: &'l Grants,
    pub(super) replies: mpsc::Sender<Reply>,
    pub(super) waiting: Arc<Semaphore>,
    pub(super) signing: Arc<Semaphore>,
}

impl Reader<'_> {
    pub(super) async fn run(&self, socket: &PacketSocket) -> Result<(), LinkError> {
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
        let (error, sockets) = match self.sockets(&need, family).await {
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
            generation: need.generation,
            datagrams: need.datagrams,
        });
        // The writer ends when the link does: then nobody awaits this.
        let _ = self.replies.send((payload, sockets)).await;
    }

    async fn sockets(&self, need: &NeedSockets, family: Family) -> io::Result<Vec<OwnedFd>> {
        let Some(assignment) = self.worker.assignment(&need.pod_uid) else {
            let counters = &self.grants.counters;
            counters.out_of_scope(Asked::Sockets, self.worker.scope.to_string());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, FOREIGN));
        };
        if assignment.pod.generation != need.generation {
            return Err(io::Error::new(io::ErrorKind::NotConnected, REPLACED));
        }
        let count = need.count.clamp(1, LARGEST_BATCH);
        let network = Arc::clone(&assignment.pod.network);
        let one = if need.datagrams {
            in_pod::asking
        } else {
            in_pod::dialing
        };
        let make = move || (0..count).map(|_| one(family)).collect();
        let sockets: Vec<OwnedFd> = self.grants.entrance.run(network, make).await?;
        let scope = self.worker.scope.to_string();
        self.grants.counters.granted(Asked::Sockets, scope, sockets.len());
        Ok(sockets)
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
            let counters = &self.grants.counters;
            counters.out_of_scope(Asked::Certificate, self.worker.scope.to_string());
            return reply_signed(&self.replies, request, Err(FOREIGN.into())).await;
        };
        let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return reply_signed(&self.replies, request, Err("too many requests at once".into())).await;
        };
        let signer = Arc::clone(&self.grants.signer);
        let signing = Arc::clone(&self.signing);
        let replies = self.replies.clone();
        let (counters, scope) = (self.grants.counters.clone(), self.worker.scope.to_string());
        tokio::spawn(async move {
            // Closed never: it is this task's own clone.
            let _turn = signing.acquire().await;
            let signed = signer.sign(&identity, sign.csr).await;
            counters.granted(Asked::Certificate, scope, usize::from(signed.is_ok()));
            reply_signed(&replies, request, signed.map_err(|error| error.to_string())).await;
            drop(permit);
        });
    }

    async fn store_keys(&self, keys: OwnedFd) -> Result<(), LinkError> {
        if !sealed::is_sealed(&keys) {
            return Err(LinkError::Protocol("keys that are not in a sealed memory file"));
        }
        self.worker.keep_keys(Arc::new(keys));
        let keeper = Arc::clone(&self.grants.keeper);
        let worker = Arc::clone(self.worker);
        // A store that is slow must not keep the worker from its sockets.
        tokio::spawn(async move {
            let name = keeper::keys(&worker.scope.to_string());
            let Some(keys) = worker.keys() else {
                return;
            };
            if let Err(error) = keeper.put(&[(name, keys.as_fd())]).await {
                // They are put again when the agent is back.
                tracing::warn!(scope = %worker.scope, %error, "the keys of a worker are not stored");
            }
        });
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
