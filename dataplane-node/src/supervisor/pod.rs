//! A pod that the supervisor holds: its namespace and its listeners. Whoever holds the pod holds them open.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trefoil_api::names::workload_uid;
use trefoil_api::proto::trefoil::descriptors::Name;

use super::in_pod::{self, LISTENERS};
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
    /// Its listeners, in the order of [`LISTENERS`].
    pub listeners: Vec<OwnedFd>,
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
        mut at_hand: impl FnMut(u16) -> Option<OwnedFd>,
    ) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(LISTENERS.len());
        for port in LISTENERS {
            let stored = at_hand(port).filter(|stored| in_pod::is_listener_on(stored, port));
            listeners.push(match stored {
                Some(stored) => stored,
                None => {
                    let opened = entrance.run(Arc::clone(&network), move || in_pod::listen(port));
                    opened.await.map_err(|error| {
                        io::Error::new(
                            error.kind(),
                            format!("listening on port {port} in the pod: {error}"),
                        )
                    })?
                }
            });
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
        self.listeners.iter().map(AsFd::as_fd).collect()
    }

    /// What is stored of it, by name.
    #[must_use]
    pub(crate) fn stored(&self) -> Vec<(Name, BorrowedFd<'_>)> {
        let listeners = LISTENERS.iter().zip(&self.listeners);
        let mut items: Vec<_> = listeners
            .map(|(port, listener)| (keeper::listener(&self.uid, *port), listener.as_fd()))
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
    let listeners = LISTENERS.iter().map(|port| keeper::listener(uid, *port));
    listeners.chain([keeper::namespace(uid)]).collect()
}
