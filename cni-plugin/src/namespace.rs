//! A network namespace held open by its descriptor: the only gate to what is in it. Work inside happens on a
//! thread of its own that ends afterwards, so no thread of the process is ever left in the wrong namespace.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

mod search;
mod sockets;
#[cfg(test)]
mod tests;

pub use search::{descends_from, find_of_pod, runs_in_pod};

/// `NSFS_MAGIC`: the file system of namespace files.
const NAMESPACE_FILE_SYSTEM: u64 = 0x6e73_6673;

/// An open network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
    identity: Identity,
}

/// What tells two namespaces apart while either is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Device number of the namespace's file.
    pub device: u64,
    /// Inode number of the namespace's file.
    pub inode: u64,
}

impl Namespace {
    /// Opens the namespace at a path. A plain file, which a deleted named namespace leaves, is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let kind = rustix::fs::fstatfs(&file)?.f_type;
        if u64::try_from(kind).ok() != Some(NAMESPACE_FILE_SYSTEM) {
            let message = format!("{}: not a namespace", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let status = rustix::fs::fstat(&file)?;
        let identity = Identity {
            device: status.st_dev,
            inode: status.st_ino,
        };
        let file = Arc::new(file);
        Ok(Self { file, identity })
    }

    /// Opens the namespace that a container runtime names, as this process may see it: at the path itself,
    /// under `root` by the same name, or through the first process's view of the file system.
    pub fn open_named(path: &Path, root: &Path) -> io::Result<Self> {
        let mut candidates = vec![path.to_path_buf()];
        candidates.extend(path.file_name().map(|name| root.join(name)));
        if let Ok(relative) = path.strip_prefix("/") {
            candidates.push(PathBuf::from("/proc/1/root").join(relative));
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for candidate in candidates {
            match Self::open(&candidate) {
                Ok(namespace) => return Ok(namespace),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The namespace of this process.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// What tells it apart.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Runs `work` on a new thread inside the namespace and waits for it. Keep it short: it blocks.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("work inside a namespace panicked")))
        })
    }

    /// Ports at which something listens for TCP.
    pub fn listening_ports(&self) -> io::Result<BTreeSet<u16>> {
        self.run(|| {
            let mut ports = BTreeSet::new();
            for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
                match std::fs::read_to_string(table) {
                    Ok(text) => ports.extend(sockets::listening(&text)),
                    // No IPv6 in this kernel.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(ports)
        })
    }

    /// Whether loopback has an IPv6 address, without which no IPv6 route over it can be made.
    pub fn has_ipv6(&self) -> io::Result<bool> {
        self.run(|| {
            let text = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
            Ok(text.lines().any(|line| line.ends_with(" lo")))
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
