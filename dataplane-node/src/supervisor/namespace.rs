//! Network namespaces of pods, and the one thread that enters them. Nothing else in the process ever
//! leaves the node proxy's own namespace.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};

use rustix::fs::fstat;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// A pod's network namespace. It lives as long as this, whatever becomes of the pod.
#[derive(Debug)]
pub(crate) struct Namespace {
    descriptor: OwnedFd,
    device: u64,
    inode: u64,
}

impl Namespace {
    /// The namespace of a descriptor.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let status = fstat(&descriptor)?;
        Ok(Self {
            descriptor,
            device: status.st_dev,
            inode: status.st_ino,
        })
    }

    /// Whether both are the same namespace, however their descriptors came here.
    #[must_use]
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

type Job = Box<dyn FnOnce(&OwnedFd) -> Result<(), Stranded> + Send>;

/// The thread could not return to its own namespace: it must do nothing more.
struct Stranded;

/// The thread that enters namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    jobs: mpsc::Sender<Job>,
}

impl Entrance {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let home = OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net")?);
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("namespaces".into())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    if job(&home).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs })
    }

    /// Runs something short in a namespace, such as making sockets.
    pub(crate) async fn run<T, F>(&self, namespace: Arc<Namespace>, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |home| {
            // This thread was made when the process started, at home: the pair below is all that moves it.
            if let Err(error) = enter(namespace.as_fd()) {
                let _ = answer.send(Err(error));
                return Ok(());
            }
            let result = work();
            let returned = enter(home.as_fd());
            let _ = answer.send(result);
            returned.map_err(|error| {
                tracing::error!(%error, "cannot return to the own network namespace; no pod can be entered any more");
                Stranded
            })
        });
        let gone = || io::Error::other("the thread that enters namespaces has ended");
        self.jobs.send(job).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    Ok(())
}
