//! Client of the agent's descriptor store: what outlives this process is put there. It keeps no descriptor
//! itself, and a store that is away is an error, never silence.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Mutex;
use trefoil_api::proto::trefoil::descriptors::{
    Ack, Batch, Kind, List, Name, Put, Remove, Request, Response, request, response,
};
use trefoil_packets::{MAX_DESCRIPTORS, PacketError, PacketSocket};

use super::in_pod::Listener;

/// How long the store has to answer. The agent itself waits five seconds for us.
const PATIENCE: Duration = Duration::from_secs(2);

/// The agent's descriptor store.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    connection: Mutex<Option<PacketSocket>>,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    /// Nobody listens.
    #[error("descriptor store: {path}: {error}; is the agent running?")]
    Away {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The connection failed.
    #[error("descriptor store: {0}")]
    Packet(#[from] PacketError),
    /// It did not answer in time.
    #[error("descriptor store: no answer within {PATIENCE:?}")]
    Silent,
    /// It refused.
    #[error("descriptor store: refused: {0}")]
    Refused(String),
    /// It did not keep to the protocol.
    #[error("descriptor store: not an answer to what was asked")]
    Confused,
}

/// The name of a listener.
#[must_use]
pub(crate) fn listener(uid: &str, listener: Listener) -> Name {
    let key = match listener {
        Listener::Stream(port) => format!("{uid}/{port}"),
        Listener::Datagrams(port) => format!("{uid}/udp/{port}"),
    };
    name(Kind::Listener, key)
}

/// The name of a pod's namespace.
#[must_use]
pub(crate) fn namespace(uid: &str) -> Name {
    name(Kind::Namespace, uid.into())
}

/// The name of a worker's keys.
#[must_use]
pub(crate) fn keys(scope: &str) -> Name {
    name(Kind::Keys, scope.into())
}

fn name(kind: Kind, key: String) -> Name {
    Name {
        kind: kind.into(),
        key,
    }
}

impl Keeper {
    /// The store at a socket. Connects when it is first asked.
    #[must_use]
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            connection: Mutex::new(None),
        }
    }

    /// Stores duplicates under their names; what had a name before is replaced.
    pub(crate) async fn put(&self, items: &[(Name, BorrowedFd<'_>)]) -> Result<(), KeeperError> {
        for items in items.chunks(MAX_DESCRIPTORS) {
            let names = items.iter().map(|(name, _)| name.clone()).collect();
            let descriptors: Vec<_> = items.iter().map(|(_, descriptor)| *descriptor).collect();
            let (ack, _) = self
                .ask(request::Payload::Put(Put { names }), &descriptors)
                .await?;
            acknowledged(&ack)?;
        }
        Ok(())
    }

    /// Drops what is stored under these names.
    pub(crate) async fn remove(&self, names: Vec<Name>) -> Result<(), KeeperError> {
        for names in names.chunks(MAX_DESCRIPTORS) {
            let names = names.to_vec();
            let (ack, _) = self.ask(request::Payload::Remove(Remove { names }), &[]).await?;
            acknowledged(&ack)?;
        }
        Ok(())
    }

    /// Everything that is stored.
    pub(crate) async fn list(&self) -> Result<Vec<(Name, OwnedFd)>, KeeperError> {
        let mut connection = self.connection.lock().await;
        let socket = self.connected(&mut connection).await?;
        let result = tokio::time::timeout(PATIENCE, list(socket)).await;
        let result = result.unwrap_or(Err(KeeperError::Silent));
        if result.is_err() {
            *connection = None;
        }
        result
    }

    /// One question, one answer. A connection that failed is not used again.
    async fn ask(
        &self,
        payload: request::Payload,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(response::Payload, Vec<OwnedFd>), KeeperError> {
        let question = Request {
            payload: Some(payload),
        };
        let mut connection = self.connection.lock().await;
        // A connection left from before the agent restarted fails at once: once more on a new one.
        if connection.is_some()
            && let Ok(answer) = self.exchange(&mut connection, &question, descriptors).await
        {
            return Ok(answer);
        }
        self.exchange(&mut connection, &question, descriptors).await
    }

    async fn exchange(
        &self,
        connection: &mut Option<PacketSocket>,
        question: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(response::Payload, Vec<OwnedFd>), KeeperError> {
        let socket = self.connected(connection).await?;
        let exchange = async {
            socket.send(question, descriptors).await?;
            answer(socket).await
        };
        let result = tokio::time::timeout(PATIENCE, exchange).await;
        let result = result.unwrap_or(Err(KeeperError::Silent));
        if result.is_err() {
            *connection = None;
        }
        result
    }

    async fn connected<'c>(
        &self,
        connection: &'c mut Option<PacketSocket>,
    ) -> Result<&'c PacketSocket, KeeperError> {
        let socket = match connection.take() {
            Some(socket) => socket,
            None => trefoil_packets::connect(&self.path)
                .await
                .map_err(|error| KeeperError::Away {
                    path: self.path.clone(),
                    error,
                })?,
        };
        Ok(connection.insert(socket))
    }
}

async fn list(socket: &PacketSocket) -> Result<Vec<(Name, OwnedFd)>, KeeperError> {
    let payload = Some(request::Payload::List(List {}));
    socket.send(&Request { payload }, &[]).await?;
    let mut stored = Vec::new();
    loop {
        let (payload, descriptors) = answer(socket).await?;
        let response::Payload::Batch(Batch { names, last }) = payload else {
            acknowledged(&payload)?;
            return Err(KeeperError::Confused);
        };
        if names.len() != descriptors.len() {
            return Err(KeeperError::Confused);
        }
        stored.extend(names.into_iter().zip(descriptors));
        if last {
            return Ok(stored);
        }
    }
}

async fn answer(socket: &PacketSocket) -> Result<(response::Payload, Vec<OwnedFd>), KeeperError> {
    let received = socket.receive::<Response>().await?;
    let (response, descriptors) = received.ok_or(KeeperError::Confused)?;
    Ok((response.payload.ok_or(KeeperError::Confused)?, descriptors))
}

fn acknowledged(payload: &response::Payload) -> Result<(), KeeperError> {
    match payload {
        response::Payload::Ack(Ack { error }) if error.is_empty() => Ok(()),
        response::Payload::Ack(Ack { error }) => Err(KeeperError::Refused(error.clone())),
        response::Payload::Batch(_) => Err(KeeperError::Confused),
    }
}
