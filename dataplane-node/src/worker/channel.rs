//! What goes to the supervisor. Whoever sends never waits: each kind of message is bounded where it is
//! made (one request for sockets a pool, one signature an identity, one export of keys, one admin answer
//! a question), so the queue is too.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::mpsc;
use trefoil_api::proto::trefoil::worker::{FromWorker, from_worker};
use trefoil_packets::PacketSocket;

type Outgoing = (from_worker::Payload, Option<OwnedFd>);

/// The way to the supervisor. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Outgoing>,
}

impl Outbox {
    /// Starts sending on a socket.
    pub(super) fn start(socket: Arc<PacketSocket>) -> Self {
        let (queue, outgoing) = mpsc::unbounded_channel();
        tokio::spawn(write(socket, outgoing));
        Self { queue }
    }

    /// An outbox whose messages are taken by the test.
    #[cfg(test)]
    pub(super) fn taken() -> (Self, mpsc::UnboundedReceiver<Outgoing>) {
        let (queue, outgoing) = mpsc::unbounded_channel();
        (Self { queue }, outgoing)
    }

    /// Sends a message.
    pub(super) fn send(&self, payload: from_worker::Payload) {
        // Fails only when the channel has failed: then the process ends.
        let _ = self.queue.send((payload, None));
    }

    /// Sends a message with a descriptor.
    pub(super) fn send_with(&self, payload: from_worker::Payload, descriptor: OwnedFd) {
        let _ = self.queue.send((payload, Some(descriptor)));
    }
}

async fn write(socket: Arc<PacketSocket>, mut outgoing: mpsc::UnboundedReceiver<Outgoing>) {
    while let Some((payload, descriptor)) = outgoing.recv().await {
        let message = FromWorker {
            payload: Some(payload),
        };
        let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
        if let Err(error) = socket.send(&message, &descriptors).await {
            tracing::error!(%error, "the supervisor cannot be told");
            return;
        }
    }
}
