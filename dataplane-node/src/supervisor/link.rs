//! The channel to one worker process. What the worker asks for is granted or refused by what it was
//! assigned, never by what its message says. A worker that breaks the protocol is ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use trefoil_api::proto::trefoil::worker::{
    AdminRequest, Drain as DrainOrder, Resources as ResourcesMessage, RestoreKeys, ToWorker, to_worker,
};
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_state::certificates::Signer;
use trefoil_packets::{PacketError, PacketSocket};

use super::counters::Counters;
use super::keeper::Keeper;
use super::namespace::Entrance;
use super::resources::{Pending, Resources};
use super::worker::Worker;
use crate::sealed;
use reader::Reader;

mod reader;
#[cfg(test)]
mod tests;

/// Sockets that one request may ask for.
pub(crate) const LARGEST_BATCH: u32 = 64;
/// Signatures that one worker may await at once.
const AWAITED: usize = 512;
/// Of them, those that the authority is asked for at the same time.
const AT_ONCE: usize = 16;
/// What a worker hears that asks for what is not its own.
const FOREIGN: &str = "not a pod of this worker";
/// What a worker hears that asks for a pod's network before it was replaced.
const REPLACED: &str = "the pod's network was replaced";
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
    /// What is granted and refused.
    pub counters: Counters,
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
        waiting: Arc::new(Semaphore::new(AWAITED)),
        signing: Arc::new(Semaphore::new(AT_ONCE)),
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
