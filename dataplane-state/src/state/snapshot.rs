//! One consistent view, with its indexes. Cloning is cheap: versions share what did not change.

use std::net::IpAddr;
use std::sync::Arc;

use trefoil_api::mesh_config::Outbound;

use super::settings::Said;
use super::unread::Unread;
use super::{Policies, Service, Settings, Workload};

/// Everything known at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    workloads: imbl::HashMap<String, Arc<Workload>>,
    services: imbl::HashMap<String, Arc<Service>>,
    /// Workloads by address. While an address is being reused there are two: of the healthy ones, the one
    /// that came last answers.
    addresses: imbl::HashMap<IpAddr, imbl::Vector<String>>,
    /// Services by virtual address, likewise.
    virtual_addresses: imbl::HashMap<IpAddr, imbl::Vector<String>>,
    /// Keys of services by hostname, one for each namespace that has it.
    hostnames: imbl::HashMap<String, imbl::OrdSet<String>>,
    /// Endpoints of a service: uids of the workloads that serve it.
    endpoints: imbl::HashMap<String, imbl::OrdMap<String, Arc<Workload>>>,
    pub(super) unread: Unread,
    pub(super) policies: Policies,
    pub(super) said: Said,
    /// Only what is known may be reached, whatever the settings say.
    pub(super) always_registry_only: bool,
}

impl Snapshot {
    /// The workload with an xDS uid.
    #[must_use]
    pub fn workload(&self, uid: &str) -> Option<Arc<Workload>> {
        self.workloads.get(uid).cloned()
    }

    /// The workload that has an address. Those in the host's network have none of their own.
    #[must_use]
    pub fn workload_at(&self, address: IpAddr) -> Option<Arc<Workload>> {
        let uids = self.addresses.get(&address)?;
        let held = || uids.iter().rev().filter_map(|uid| self.workloads.get(uid));
        held()
            .find(|workload| workload.healthy)
            .or_else(|| held().next())
            .cloned()
    }

    /// Whether an address is of something that was refused and never understood: it is known, but not how it
    /// may be reached.
    #[must_use]
    pub fn is_unread(&self, address: IpAddr) -> bool {
        self.unread.has(address)
    }

    /// Notes that a resource was refused that may have these addresses. A last good version stays in force.
    pub(super) fn refuse(&mut self, name: &str, addresses: Vec<IpAddr>) {
        if self.workloads.contains_key(name) || self.services.contains_key(name) {
            return;
        }
        self.unread.insert(name, addresses);
    }

    /// The service named `NAMESPACE/HOSTNAME`.
    #[must_use]
    pub fn service(&self, key: &str) -> Option<Arc<Service>> {
        self.services.get(key).cloned()
    }

    /// The service that has a virtual address.
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        let key = self.virtual_addresses.get(&address)?.last()?;
        self.service(key)
    }

    /// The service with a hostname, preferring one of `namespace`.
    #[must_use]
    pub fn service_named(&self, hostname: &str, namespace: &str) -> Option<Arc<Service>> {
        let keys = self.hostnames.get(hostname)?;
        let preferred = format!("{namespace}/{hostname}");
        let key = keys.get(&preferred).or_else(|| keys.get_min())?;
        self.service(key)
    }

    /// The workloads that serve a service, in the order of their uids.
    pub fn endpoints(&self, service: &str) -> impl Iterator<Item = &Arc<Workload>> {
        self.endpoints
            .get(service)
            .into_iter()
            .flat_map(|map| map.values())
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The mesh-wide settings, where the control plane says.
    #[must_use]
    pub fn settings(&self) -> Option<&Settings> {
        match &self.said {
            Said::Settings(settings) => Some(settings),
            Said::Nothing | Said::Refused => None,
        }
    }

    /// Whether destinations that are not known may not be reached.
    #[must_use]
    pub fn registry_only(&self) -> bool {
        let said = match &self.said {
            Said::Nothing => false,
            Said::Refused => true,
            Said::Settings(settings) => settings.outbound == Outbound::RegistryOnly,
        };
        said || self.always_registry_only
    }

    pub(super) fn insert_workload(&mut self, workload: Workload) {
        self.remove_workload(&workload.uid);
        self.unread.remove(&workload.uid);
        let workload = Arc::new(workload);
        if !workload.host_network {
            for address in &workload.addresses {
                let uids = self.addresses.entry(*address).or_default();
                uids.push_back(workload.uid.clone());
            }
        }
        for service in workload.services.keys() {
            let endpoints = self.endpoints.entry(service.clone()).or_default();
            endpoints.insert(workload.uid.clone(), workload.clone());
        }
        self.workloads.insert(workload.uid.clone(), workload);
    }

    pub(super) fn remove_workload(&mut self, uid: &str) -> bool {
        let Some(old) = self.workloads.remove(uid) else {
            return false;
        };
        for address in &old.addresses {
            forget(&mut self.addresses, address, uid);
        }
        for service in old.services.keys() {
            if let Some(endpoints) = self.endpoints.get_mut(service) {
                endpoints.remove(uid);
                if endpoints.is_empty() {
                    self.endpoints.remove(service);
                }
            }
        }
        true
    }

    pub(super) fn insert_service(&mut self, service: Service) {
        let key = service.key();
        self.remove_service(&key);
        self.unread.remove(&key);
        for address in &service.addresses {
            let keys = self.virtual_addresses.entry(*address).or_default();
            keys.push_back(key.clone());
        }
        let named = self.hostnames.entry(service.hostname.clone()).or_default();
        named.insert(key.clone());
        self.services.insert(key, Arc::new(service));
    }

    pub(super) fn remove_service(&mut self, key: &str) -> bool {
        let Some(old) = self.services.remove(key) else {
            return false;
        };
        for address in &old.addresses {
            forget(&mut self.virtual_addresses, address, key);
        }
        if let Some(named) = self.hostnames.get_mut(&old.hostname) {
            named.remove(key);
            if named.is_empty() {
                self.hostnames.remove(&old.hostname);
            }
        }
        true
    }
}

fn forget(index: &mut imbl::HashMap<IpAddr, imbl::Vector<String>>, address: &IpAddr, name: &str) {
    if let Some(names) = index.get_mut(address) {
        names.retain(|other| other != name);
        if names.is_empty() {
            index.remove(address);
        }
    }
}
