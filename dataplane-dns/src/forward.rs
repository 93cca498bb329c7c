//! Asking the resolver that the client meant. One question, one response, within a time; nothing is asked twice:
//! clients repeat what they want to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use trefoil_dataplane_core::sockets::{ConnectError, Family, connect};

use crate::Sockets;
use crate::message::responds;

#[cfg(test)]
mod tests;

/// The longest message.
const LONGEST: usize = u16::MAX as usize;

/// Why a resolver gave no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no socket in the workload's namespace: {0}")]
    Socket(#[source] io::Error),
    #[error("the resolver cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the resolver cannot be reached: {0}")]
    Connect(#[from] ConnectError),
    #[error("the resolver did not respond in time")]
    Silent,
    #[error("the resolver responded to something else")]
    Unrelated,
}

/// Asks with a datagram.
pub(crate) async fn ask(
    sockets: &dyn Sockets,
    resolver: SocketAddr,
    query: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, ForwardError> {
    let asked = async {
        let socket = sockets.datagrams(Family::of(resolver.ip())).await;
        let socket = socket
            .and_then(UdpSocket::from_std)
            .map_err(ForwardError::Socket)?;
        socket
            .connect(resolver)
            .await
            .map_err(ForwardError::Unreachable)?;
        socket.send(query).await.map_err(ForwardError::Unreachable)?;
        let mut response = Vec::with_capacity(LONGEST);
        loop {
            response.clear();
            let received = socket.recv_buf(&mut response).await;
            received.map_err(ForwardError::Unreachable)?;
            if responds(&response, query) {
                return Ok(response);
            }
        }
    };
    tokio::time::timeout(patience, asked)
        .await
        .map_err(|_| ForwardError::Silent)?
}

/// A connection to a resolver, made when it is first needed, and again once if it was closed since.
pub(crate) struct Connection<'s> {
    sockets: &'s dyn Sockets,
    resolver: SocketAddr,
    stream: Option<TcpStream>,
}

impl<'s> Connection<'s> {
    pub(crate) fn new(sockets: &'s dyn Sockets, resolver: SocketAddr) -> Self {
        Self {
            sockets,
            resolver,
            stream: None,
        }
    }

    /// Asks over the connection.
    pub(crate) async fn ask(&mut self, query: &[u8], patience: Duration) -> Result<Vec<u8>, ForwardError> {
        let asked = async {
            // It may have been closed since.
            if let Some(mut stream) = self.stream.take()
                && let Ok(response) = exchange(&mut stream, query).await
            {
                self.stream = Some(stream);
                return Ok::<_, ForwardError>(response);
            }
            let mut stream = connect(self.sockets, self.resolver, None).await?;
            let response = exchange(&mut stream, query)
                .await
                .map_err(ForwardError::Unreachable)?;
            self.stream = Some(stream);
            Ok(response)
        };
        let response = tokio::time::timeout(patience, asked)
            .await
            .map_err(|_| ForwardError::Silent)??;
        if responds(&response, query) {
            return Ok(response);
        }
        self.stream = None;
        Err(ForwardError::Unrelated)
    }
}

/// Passes a query on whose response has many messages, and what both ends say from then on.
pub(crate) async fn splice(
    sockets: &dyn Sockets,
    resolver: SocketAddr,
    query: &[u8],
    client: &mut TcpStream,
) -> Result<(), ForwardError> {
    let mut upstream = connect(sockets, resolver, None).await?;
    write(&mut upstream, query)
        .await
        .map_err(ForwardError::Unreachable)?;
    let spliced = tokio::io::copy_bidirectional(client, &mut upstream).await;
    spliced.map(drop).map_err(ForwardError::Unreachable)
}

async fn exchange(stream: &mut TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    write(stream, query).await?;
    read(stream).await
}

/// Writes a message with its length before it.
pub(crate) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// Reads a message with its length before it.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
