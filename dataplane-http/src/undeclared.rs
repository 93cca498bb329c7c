//! Ports that declare nothing, at which clients were waited for in vain: what is spoken there begins with the server, and
//! each connection waits for nothing. For people to see; it decides nothing, and holds a few only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trefoil_dataplane_state::state::{Protocol, Snapshot};

use crate::seam::Downstream;

/// As many are remembered.
const MOST: usize = 64;

/// The ports, shared. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Undeclared {
    ports: Arc<Mutex<BTreeMap<String, Port>>>,
}

/// A port, and by what it is found again.
#[derive(Debug)]
enum Port {
    /// Of the service with this key.
    Service(String, u16),
    /// Of the workload with this xDS uid.
    Workload(String, u16),
}

impl Port {
    /// Whether it is there and still declares nothing.
    fn is_undeclared(&self, known: &Snapshot) -> bool {
        let declared = match self {
            Self::Service(key, port) => known.service(key).and_then(|service| service.declared(*port)),
            Self::Workload(uid, port) => known.workload(uid).map(|workload| workload.declared(*port)),
        };
        declared == Some(Protocol::Unknown)
    }
}

impl Undeclared {
    /// The client of `downstream` was waited for in vain.
    pub fn waited(&self, downstream: &Downstream) {
        let Some((name, port)) = called(downstream) else {
            return;
        };
        let mut ports = self.lock();
        if ports.len() < MOST {
            ports.insert(name, port);
        }
    }

    /// `HOST:PORT` of services, `NAMESPACE/POD:PORT` of pods that were dialled themselves; those that declare something
    /// by now, or are gone, are forgotten.
    #[must_use]
    pub fn ports(&self, known: &Snapshot) -> Vec<String> {
        let mut ports = self.lock();
        ports.retain(|_, port| port.is_undeclared(known));
        ports.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was dialled. At the endpoint's own end the service that declares its port is the one to be corrected.
fn called(downstream: &Downstream) -> Option<(String, Port)> {
    let port = downstream.destination.port();
    let Some(endpoint) = &downstream.endpoint else {
        let service = downstream.service.as_ref()?;
        let name = format!("{}:{port}", service.hostname);
        return Some((name, Port::Service(service.key(), port)));
    };
    let workload = &endpoint.workload;
    let mut of_port = workload.services.iter().flat_map(|(key, ports)| {
        let ours = ports.iter().filter(|mapping| mapping.target_port == Some(port));
        ours.map(move |mapping| (key, mapping.service_port))
    });
    let name = match of_port.next() {
        Some((key, port)) => format!("{}:{port}", key.split('/').nth(1).unwrap_or(key)),
        None => format!("{}/{}:{port}", workload.namespace, workload.name),
    };
    Some((name, Port::Workload(workload.uid.clone(), port)))
}
