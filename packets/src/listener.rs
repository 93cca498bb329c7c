//! A listening packet socket at a path.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, chmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use tokio::io::unix::AsyncFd;

use crate::PacketSocket;
use crate::register::register;

/// Accepts packet connections. Its file outlives it: a successor replaces it, and until then clients are
/// refused and come again.
#[derive(Debug)]
pub struct PacketListener {
    descriptor: AsyncFd<OwnedFd>,
}

impl PacketListener {
    /// Listens at `path`, readable and writable by its owner alone. A file left by a predecessor is
    /// replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        chmod(path, Mode::RUSR | Mode::WUSR)?;
        listen(&socket, 16)?;
        Ok(Self {
            descriptor: register(socket)?,
        })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<PacketSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let mut guard = self.descriptor.readable().await?;
            let accepted = guard.try_io(|listener| Ok(accept_with(listener.get_ref(), flags)?));
            if let Ok(accepted) = accepted {
                return PacketSocket::new(accepted?);
            }
        }
    }
}
