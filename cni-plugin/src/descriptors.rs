//! The descriptor store: keeps duplicates of what must outlive the node proxy, its listeners in the pods'
//! namespaces and its workers' sealed keys. Only the authenticated node proxy may use it. It never looks into
//! what it keeps, and writes nothing to disk.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use trefoil_api::proto::trefoil::descriptors::{
    Ack, Batch, Kind, Name, Request, Response, request, response,
};
use trefoil_packets::{Credentials, PacketError, PacketListener, PacketSocket};

use crate::zds::RETRY_PAUSE;

#[cfg(test)]
mod tests;

/// Descriptors in one packet of an answer.
const BATCH: usize = 100;
/// The most descriptors kept: a node has a few per pod.
const CAPACITY: usize = 16_384;
/// The longest key, in bytes.
const KEY_LENGTH: usize = 512;

/// Kept descriptors by name.
#[derive(Default)]
pub struct DescriptorStore {
    kept: Mutex<BTreeMap<(i32, String), Arc<OwnedFd>>>,
}

impl DescriptorStore {
    /// Accepts node proxies until the task is dropped. `allowed` says who is one.
    pub async fn serve(
        self: Arc<Self>,
        listener: PacketListener,
        allowed: impl Fn(Credentials) -> bool + Send + Sync + 'static,
    ) {
        loop {
            let accepted = listener.accept().await;
            let peer = accepted.and_then(|socket| Ok((socket.credentials()?, socket)));
            let (peer, socket) = match peer {
                Ok(peer) => peer,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the descriptor store was not accepted");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            if !allowed(peer) {
                tracing::warn!(
                    process = peer.process,
                    user = peer.user,
                    "refused: not the node proxy"
                );
                continue;
            }
            let store = Arc::clone(&self);
            tokio::spawn(async move {
                tracing::info!(process = peer.process, "node proxy uses the descriptor store");
                if let Err(error) = store.converse(&socket).await {
                    tracing::warn!(%error, "descriptor store: connection ended");
                }
            });
        }
    }

    /// How many descriptors are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Uids of the pods whose namespaces are kept: those that the node proxy serves.
    #[must_use]
    pub fn pods(&self) -> BTreeSet<String> {
        let kept = self.lock();
        let namespaces = kept.keys().filter(|(kind, _)| *kind == Kind::Namespace as i32);
        namespaces.map(|(_, uid)| uid.clone()).collect()
    }

    /// Drops what is kept for a pod that ended: its namespace would live on with its descriptors.
    pub fn forget_pod(&self, uid: &str) {
        let listener = Kind::Listener as i32;
        let namespace = Kind::Namespace as i32;
        let prefix = format!("{uid}/");
        self.lock().retain(|(kind, key), _| {
            let of_pod =
                (*kind == listener && key.starts_with(&prefix)) || (*kind == namespace && key == uid);
            !of_pod
        });
    }

    async fn converse(&self, socket: &PacketSocket) -> Result<(), PacketError> {
        while let Some((message, descriptors)) = socket.receive::<Request>().await? {
            match message.payload {
                Some(request::Payload::Put(put)) => {
                    let stored = self.put(put.names, descriptors);
                    acknowledge(socket, stored.err().unwrap_or_default()).await?;
                }
                Some(request::Payload::Remove(remove)) => {
                    self.remove(remove.names);
                    acknowledge(socket, "").await?;
                }
                Some(request::Payload::List(_)) => self.list(socket).await?,
                None => acknowledge(socket, "a request without content").await?,
            }
        }
        Ok(())
    }

    pub(crate) fn put(&self, names: Vec<Name>, descriptors: Vec<OwnedFd>) -> Result<(), &'static str> {
        if names.len() != descriptors.len() {
            return Err("as many names as descriptors are needed");
        }
        let valid =
            |name: &Name| name.kind() != Kind::Unspecified && (1..=KEY_LENGTH).contains(&name.key.len());
        if !names.iter().all(valid) {
            return Err("a name without a known kind, or with an empty or too long key");
        }
        let mut kept = self.lock();
        if kept.len() + names.len() > CAPACITY {
            return Err("the store is full");
        }
        for (name, descriptor) in names.into_iter().zip(descriptors) {
            kept.insert((name.kind, name.key), Arc::new(descriptor));
        }
        Ok(())
    }

    fn remove(&self, names: Vec<Name>) {
        let mut kept = self.lock();
        for name in names {
            kept.remove(&(name.kind, name.key));
        }
    }

    async fn list(&self, socket: &PacketSocket) -> Result<(), PacketError> {
        let kept: Vec<_> = {
            let kept = self.lock();
            kept.iter()
                .map(|((kind, key), descriptor)| {
                    let name = Name {
                        kind: *kind,
                        key: key.clone(),
                    };
                    (name, Arc::clone(descriptor))
                })
                .collect()
        };
        let batches = kept.len().div_ceil(BATCH).max(1);
        for index in 0..batches {
            let end = kept.len().min((index + 1) * BATCH);
            let part = &kept[index * BATCH..end];
            let batch = Batch {
                names: part.iter().map(|(name, _)| name.clone()).collect(),
                last: index + 1 == batches,
            };
            let descriptors: Vec<_> = part.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
            let payload = Some(response::Payload::Batch(batch));
            socket.send(&Response { payload }, &descriptors).await?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(i32, String), Arc<OwnedFd>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn acknowledge(socket: &PacketSocket, error: &str) -> Result<(), PacketError> {
    let ack = Ack { error: error.into() };
    let payload = Some(response::Payload::Ack(ack));
    socket.send(&Response { payload }, &[]).await
}
