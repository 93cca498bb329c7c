//! A pod that the supervisor holds: its namespace and its listeners. Whoever holds the pod holds them open.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trefoil_api::names::workload_uid;
use trefoil_api::proto::trefoil::descriptors::Name;

use super::in_pod::{ALL, Listener};
use super::keeper;
use super::namespace::{Entrance, Namespace};

/// Pods that this process opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// A pod with its listeners.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Kubernetes uid.
    pub uid: String,
    /// Tells pods of one uid apart: one whose network was replaced is another.
    pub generation: u64,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its network namespace.
    pub network: Arc<Namespace>,
    /// Its listeners, in the order of [`ALL`]; it may lack those that are not needed.
    pub listeners: Vec<(Listener, OwnedFd)>,
}

/// What the agent says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    /// Kubernetes uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
}

impl Pod {
    /// A pod of what the agent says. Listeners that are at hand are taken, the others opened.
    pub(crate) async fn open(
        entrance: &Entrance,
        description: Description,
        network: Arc<Namespace>,
        mut at_hand: impl FnMut(Listener) -> Option<OwnedFd>,
    ) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(ALL.len());
        for listener in ALL {
            if let Some(stored) = at_hand(listener).filter(|stored| listener.is(stored)) {
                listeners.push((listener, stored));
                continue;
            }
            let opened = entrance.run(Arc::clone(&network), move || listener.open()).await;
            match opened {
                Ok(opened) => listeners.push((listener, opened)),
                Err(error) if listener.is_needed() => {
                    let port = listener.port();
                    let message = format!("listening on port {port} in the pod: {error}");
                    return Err(io::Error::new(error.kind(), message));
                }
                Err(error) => {
                    tracing::warn!(pod = description.name, ?listener, %error, "a pod's DNS queries are not answered here");
                }
            }
        }
        Ok(Self {
            uid: description.uid,
            generation: next_generation(),
            name: description.name,
            namespace: description.namespace,
            service_account: description.service_account,
            network,
            listeners,
        })
    }

    /// Whether this is the pod that the agent describes, in the same namespace.
    #[must_use]
    pub(crate) fn is(&self, description: &Description, network: &Namespace) -> bool {
        let same = (&self.uid, &self.name, &self.namespace, &self.service_account)
            == (
                &description.uid,
                &description.name,
                &description.namespace,
                &description.service_account,
            );
        same && self.network.is(network)
    }

    /// The uid of its workload over xDS.
    #[must_use]
    pub(crate) fn workload_uid(&self) -> String {
        workload_uid(&self.namespace, &self.name)
    }

    /// Its listeners, to be passed on.
    #[must_use]
    pub(crate) fn listener_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners
            .iter()
            .map(|(_, listener)| listener.as_fd())
            .collect()
    }

    /// Ports of its listeners for connections, then of those for datagrams, as their descriptors are passed on.
    #[must_use]
    pub(crate) fn ports(&self) -> (Vec<u32>, Vec<u32>) {
        let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
        for (listener, _) in &self.listeners {
            match listener {
                Listener::Stream(port) => streams.push(u32::from(*port)),
                Listener::Datagrams(port) => datagrams.push(u32::from(*port)),
            }
        }
        (streams, datagrams)
    }

    /// What is stored of it, by name.
    #[must_use]
    pub(crate) fn stored(&self) -> Vec<(Name, BorrowedFd<'_>)> {
        let listeners = self.listeners.iter();
        let mut items: Vec<_> = listeners
            .map(|(listener, descriptor)| (keeper::listener(&self.uid, *listener), descriptor.as_fd()))
            .collect();
        items.push((keeper::namespace(&self.uid), self.network.as_fd()));
        items
    }
}

/// A number that no pod had before in this process.
pub(super) fn next_generation() -> u64 {
    OPENED.fetch_add(1, Ordering::Relaxed) + 1
}

/// Every name under which something of a pod is stored.
#[must_use]
pub(crate) fn stored_names(uid: &str) -> Vec<Name> {
    let listeners = ALL.iter().map(|listener| keeper::listener(uid, *listener));
    listeners.chain([keeper::namespace(uid)]).collect()
}
