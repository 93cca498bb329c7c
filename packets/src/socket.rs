//! One connected packet socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use prost::Message;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
    socketpair,
};
use tokio::io::unix::AsyncFd;

use crate::register::register;
use crate::{MAX_DESCRIPTORS, MAX_PACKET};

/// A connected `SOCK_SEQPACKET` socket that carries protobuf messages and descriptors.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: AsyncFd<OwnedFd>,
}

/// Who is at the other end, as the kernel says (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, at the time of connecting.
    pub process: i32,
    /// User id.
    pub user: u32,
}

/// Why a packet was not sent or received. After a malformed packet, close the connection.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The socket failed.
    #[error("packet socket: {0}")]
    Io(#[from] io::Error),
    /// Cut off by the kernel: larger than anybody here sends.
    #[error("packet socket: a packet was larger than {MAX_PACKET} bytes or had too many descriptors")]
    Truncated,
    /// Not a message of the expected type.
    #[error("packet socket: not a message of the expected type: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Too large to be sent.
    #[error("packet socket: a message of {bytes} bytes with {descriptors} descriptors is too large to send")]
    TooLarge {
        /// Size of the message.
        bytes: usize,
        /// Number of descriptors.
        descriptors: usize,
    },
}

/// Connects to a listener at `path`.
pub async fn connect(path: &Path) -> io::Result<PacketSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    PacketSocket::new(socket)
}

/// Two connected sockets, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

impl PacketSocket {
    /// A socket of a descriptor that is a non-blocking, connected packet socket.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self {
            descriptor: register(descriptor)?,
        })
    }

    /// Sends a message with descriptors. Waits while the other end does not read.
    pub async fn send(
        &self,
        message: &impl Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), PacketError> {
        let bytes = message.encode_to_vec();
        if bytes.len() > MAX_PACKET || descriptors.len() > MAX_DESCRIPTORS {
            return Err(PacketError::TooLarge {
                bytes: bytes.len(),
                descriptors: descriptors.len(),
            });
        }
        loop {
            let mut guard = self.descriptor.writable().await?;
            if let Ok(sent) = guard.try_io(|socket| send_now(socket.as_fd(), &bytes, descriptors)) {
                return Ok(sent?);
            }
        }
    }

    /// The next message and its descriptors; nothing at the end of the connection.
    pub async fn receive<M: Message + Default>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, PacketError> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let mut guard = self.descriptor.readable().await?;
            let Ok(received) = guard.try_io(|socket| receive_now(socket.as_fd(), &mut buffer)) else {
                continue;
            };
            let received = match received {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                other => other?,
            };
            if received.truncated {
                return Err(PacketError::Truncated);
            }
            if received.length == 0 && received.descriptors.is_empty() {
                return Ok(None);
            }
            return Ok(Some((
                M::decode(&buffer[..received.length])?,
                received.descriptors,
            )));
        }
    }

    /// Who is at the other end.
    pub fn credentials(&self) -> io::Result<Credentials> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.descriptor)?;
        Ok(Credentials {
            process: credentials.pid.as_raw_nonzero().get(),
            user: credentials.uid.as_raw(),
        })
    }
}

struct Received {
    length: usize,
    descriptors: Vec<OwnedFd>,
    truncated: bool,
}

fn send_now(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for the descriptors"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        })
        .flatten()
        .collect();
    let truncated = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Received {
        length: message.bytes,
        descriptors,
        truncated,
    })
}
