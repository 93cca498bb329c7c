//! Takes changes in, and marks what they may affect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use trefoil_api::crd::{FieldError, MtlsMode};
use trefoil_api::mesh_config::{MeshConfig, Outbound};
use trefoil_api::names::{MESH_CONFIG_KEY, MESH_NAMESPACE, label};

use super::facts::{Endpoint, Pod, PolicyObject, RouteObject, Service, Slice};
use super::policies::Entry;
use super::routes::{RouteEntry, RouteKey};
use super::{Change, Index, NodePlacements, ObjectKey};

impl Index {
    /// Takes a change in. Resources change with the next [`Self::flush`].
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Namespace(name, facts) => {
                if replace(&mut self.namespaces, name.clone(), facts) {
                    self.news = true;
                    self.mark_namespace(&name);
                    self.mark_services(&name);
                }
            }
            Change::Node(name, facts) => {
                let gone = facts.is_none();
                let changed = replace(&mut self.nodes, name.clone(), facts);
                let forgotten = gone && self.placements.remove(&name).is_some();
                if changed || forgotten {
                    self.mark_node(&name);
                }
            }
            Change::Pod(key, facts) => self.apply_pod(key, facts),
            Change::Service(key, facts) => self.apply_service(key, facts),
            Change::Slice(key, facts) => self.apply_slice(key, facts),
            Change::NetworkPolicy(key, facts) => self.apply_network_policy(key, facts),
            Change::Authorization(key, object) => self.apply_authorization(key, object),
            Change::PeerAuthentication(key, object) => self.apply_peer_authentication(key, object),
            Change::Gateway(key, facts) => {
                if replace(&mut self.gateways, key.clone(), facts) {
                    self.dirty.waypoints.insert(key);
                }
            }
            Change::Hindered(key, why) => {
                if replace(&mut self.hindrances, key.clone(), why) {
                    self.dirty.waypoints.insert(key);
                }
            }
            Change::GatewayClass(name, facts) => {
                if replace(&mut self.gateway_classes, name.clone(), facts) {
                    self.news = true;
                    self.report_class(&name);
                }
            }
            Change::Route(kind, key, object) => self.apply_route((kind, key), object),
            Change::ReferenceGrant(key, facts) => {
                if replace(&mut self.grants, key.clone(), facts) {
                    let routes = in_namespace(&self.routes_by_service, &key.namespace);
                    let routes: BTreeSet<_> = routes.flat_map(|(_, routes)| routes.clone()).collect();
                    self.dirty.routes.extend(routes);
                }
            }
            Change::MeshConfig(text) => self.apply_config(text),
            Change::Authority(authority) => {
                if self.authority.as_ref() != Some(&authority) {
                    self.authority = Some(authority);
                    self.dirty.settings = true;
                }
            }
            Change::Placements(placements) => self.apply_placements(placements),
            Change::PlacementsForgotten(node) => {
                if self.placements.remove(&node).is_some() {
                    self.mark_node(&node);
                }
            }
        }
    }

    fn apply_pod(&mut self, key: ObjectKey, facts: Option<Pod>) {
        let old = self.pods.get(&key).cloned();
        if old == facts {
            return;
        }
        // Control planes are counted.
        self.news |= key.namespace == MESH_NAMESPACE;
        for (pod, present) in [(&old, false), (&facts, true)] {
            let Some(pod) = pod else { continue };
            put(&mut self.pods_by_node, pod.node.clone(), &key, present);
            for address in &pod.addresses {
                put(&mut self.pods_by_address, *address, &key, present);
                // Whose endpoint the address is may have changed.
                let sharing = self.pods_by_address.get(address).into_iter().flatten();
                self.dirty.pods.extend(sharing.cloned());
                let slices = self.slices_by_address.get(address).into_iter().flatten();
                self.dirty.slices.extend(slices.cloned());
            }
        }
        match facts {
            Some(pod) => self.pods.insert(key.clone(), pod),
            None => self.pods.remove(&key),
        };
        self.dirty.pods.insert(key);
    }

    fn apply_service(&mut self, key: ObjectKey, facts: Option<Service>) {
        let old = self.services.get(&key).cloned();
        if old == facts {
            return;
        }
        for (service, present) in [(&old, false), (&facts, true)] {
            let Some(name) = service
                .as_ref()
                .and_then(|one| one.labels.get(label::GATEWAY_NAME))
            else {
                continue;
            };
            let gateway = ObjectKey::new(key.namespace.clone(), name.clone());
            put(&mut self.services_of_gateway, gateway.clone(), &key, present);
            self.dirty.waypoints.insert(gateway);
        }
        match facts {
            Some(service) => self.services.insert(key.clone(), service),
            None => self.services.remove(&key),
        };
        self.mark_service(&key);
        let routes = self.routes_by_service.get(&key).into_iter().flatten();
        self.dirty.routes.extend(routes.cloned());
    }

    fn apply_route(&mut self, route: RouteKey, object: Option<RouteObject>) {
        let old = self.routes.remove(&route);
        let (kind, key) = &route;
        if let Some(old) = &old {
            for service in old.services(&key.namespace) {
                put(&mut self.routes_by_service, service, &route, false);
            }
        }
        if let Some(object) = object {
            let entry = RouteEntry::read(*kind, object, old);
            for service in entry.services(&key.namespace) {
                put(&mut self.routes_by_service, service, &route, true);
            }
            self.routes.insert(route.clone(), entry);
        }
        self.dirty.routes.insert(route);
    }

    fn apply_slice(&mut self, key: ObjectKey, facts: Option<Slice>) {
        if self.slices.get(&key) == facts.as_ref() {
            return;
        }
        let old = self.slices.get(&key).cloned();
        self.mark_around_slice(&key);
        let about = differing(old.as_ref(), facts.as_ref());
        self.dirty
            .pods
            .extend(pods_of(about.into_iter(), &self.pods_by_address));
        for (slice, present) in [(&old, false), (&facts, true)] {
            let Some(slice) = slice else { continue };
            let service = ObjectKey::new(key.namespace.clone(), slice.service.clone());
            put(&mut self.slices_by_service, service, &key, present);
            for endpoint in &slice.endpoints {
                if let Some(pod) = &endpoint.pod {
                    put(&mut self.slices_by_pod, pod.clone(), &key, present);
                }
                for address in &endpoint.addresses {
                    put(&mut self.slices_by_address, *address, &key, present);
                }
            }
        }
        match facts {
            Some(slice) => self.slices.insert(key.clone(), slice),
            None => self.slices.remove(&key),
        };
        self.mark_around_slice(&key);
    }

    fn apply_authorization(&mut self, key: ObjectKey, object: Option<PolicyObject>) {
        let old = self.authorization.remove(&key);
        let mut waypoints = old
            .as_ref()
            .map_or_else(Vec::new, |old| old.target.waypoints(&key.namespace));
        if let Some(object) = object {
            let entry = Entry::read(&key, object, old);
            waypoints.extend(entry.target.waypoints(&key.namespace));
            self.authorization.insert(key.clone(), entry);
        }
        for waypoint in waypoints {
            self.dirty
                .pods
                .extend(self.pods_naming.naming(&waypoint).cloned());
        }
        self.mark_scope(&key.namespace);
        self.dirty.authorization.insert(key);
    }

    fn apply_peer_authentication(&mut self, key: ObjectKey, object: Option<PolicyObject>) {
        let old = self.peer_authentication.remove(&key);
        if let Some(object) = object {
            let entry = Entry::read(&key, object, old);
            self.peer_authentication.insert(key.clone(), entry);
        }
        self.mark_scope(&key.namespace);
        self.dirty.peer_authentication.insert(key);
    }

    fn apply_config(&mut self, text: Option<String>) {
        self.news = true;
        self.config_errors.clear();
        self.config_seen = text.is_some();
        let config = match text.as_deref().map(MeshConfig::parse) {
            None => {
                self.good_config = None;
                MeshConfig::default()
            }
            Some(Ok(config)) => self.good_config.insert(config).clone(),
            Some(Err(error)) => {
                self.config_errors
                    .push(FieldError::new(MESH_CONFIG_KEY, error.to_string()));
                // With no good version, what it would have guarded is closed.
                self.good_config.clone().unwrap_or_else(|| MeshConfig {
                    default_mtls: MtlsMode::Strict,
                    outbound: Outbound::RegistryOnly,
                    ..MeshConfig::default()
                })
            }
        };
        if config != self.config {
            self.config = config;
            self.dirty.settings = true;
            self.mark_all();
        }
    }

    fn apply_placements(&mut self, report: NodePlacements) {
        // From the first report on, annotations have no say.
        let all = report.snapshot || !self.placements.contains_key(&report.node);
        let known = self.placements.entry(report.node.clone()).or_default();
        let mut touched: BTreeSet<String> = report.removed.into_iter().collect();
        if report.snapshot {
            known.clear();
        }
        for uid in &touched {
            known.remove(uid);
        }
        for pod in report.pods {
            touched.insert(pod.uid.clone());
            known.insert(pod.uid.clone(), pod);
        }
        let on_node = self.pods_by_node.get(&report.node).into_iter().flatten();
        let affected =
            on_node.filter(|key| all || self.pods.get(*key).is_some_and(|pod| touched.contains(&pod.uid)));
        self.dirty.pods.extend(affected.cloned());
    }

    fn mark_node(&mut self, node: &str) {
        let pods = self.pods_by_node.get(node).into_iter().flatten();
        self.dirty.pods.extend(pods.cloned());
    }

    pub(super) fn mark_namespace(&mut self, namespace: &str) {
        let pods = in_namespace(&self.pods, namespace).map(|(key, _)| key.clone());
        self.dirty.pods.extend(pods);
    }

    /// The services of a namespace, and what is behind them.
    fn mark_services(&mut self, namespace: &str) {
        let services: Vec<_> = in_namespace(&self.services, namespace)
            .map(|(key, _)| key.clone())
            .collect();
        for service in services {
            self.mark_service(&service);
        }
    }

    /// A service, and what is behind it.
    pub(super) fn mark_service(&mut self, key: &ObjectKey) {
        let slices = self.slices_by_service.get(key).cloned().unwrap_or_default();
        for slice in slices {
            self.mark_slice(&slice);
        }
        self.dirty.services.insert(key.clone());
    }

    /// What policies of a namespace are about: its pods; those of the mesh's own namespace: all pods.
    fn mark_scope(&mut self, namespace: &str) {
        if namespace == MESH_NAMESPACE {
            self.dirty.pods.extend(self.pods.keys().cloned());
        } else {
            self.mark_namespace(namespace);
        }
    }

    fn mark_all(&mut self) {
        self.dirty.pods.extend(self.pods.keys().cloned());
        self.dirty.slices.extend(self.slices.keys().cloned());
        self.dirty.services.extend(self.services.keys().cloned());
    }

    /// A slice, the pods that are its endpoints, and the policies for its service.
    fn mark_slice(&mut self, key: &ObjectKey) {
        self.mark_around_slice(key);
        let pods = pods_of(
            self.slices
                .get(key)
                .into_iter()
                .flat_map(|slice| &slice.endpoints),
            &self.pods_by_address,
        );
        self.dirty.pods.extend(pods);
    }

    /// A slice and the policies for its service, without the pods.
    fn mark_around_slice(&mut self, key: &ObjectKey) {
        self.dirty.slices.insert(key.clone());
        let Some(slice) = self.slices.get(key) else {
            return;
        };
        let service = ObjectKey::new(key.namespace.clone(), slice.service.clone());
        let gateway = self
            .services
            .get(&service)
            .and_then(|service| service.labels.get(label::GATEWAY_NAME));
        self.dirty
            .waypoints
            .extend(gateway.map(|name| ObjectKey::new(key.namespace.clone(), name.clone())));
        let targeting = in_namespace(&self.authorization, &key.namespace)
            .filter(|(_, entry)| entry.target.names_service(&slice.service))
            .map(|(key, _)| key.clone());
        self.dirty.authorization.extend(targeting);
    }
}

/// The pods that endpoints are, or may be.
fn pods_of<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
    by_address: &BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
) -> BTreeSet<ObjectKey> {
    let mut pods = BTreeSet::new();
    for endpoint in endpoints {
        pods.extend(endpoint.pod.clone());
        let addressed = endpoint.addresses.iter().filter_map(|one| by_address.get(one));
        pods.extend(addressed.flatten().cloned());
    }
    pods
}

/// The endpoints that a change of a slice is about: where only endpoints differ, those, else all.
fn differing<'a>(old: Option<&'a Slice>, new: Option<&'a Slice>) -> BTreeSet<&'a Endpoint> {
    let of = |slice: Option<&'a Slice>| -> BTreeSet<&'a Endpoint> {
        slice.into_iter().flat_map(|slice| &slice.endpoints).collect()
    };
    let alike = |(old, new): (&Slice, &Slice)| old.service == new.service && old.ports == new.ports;
    if old.zip(new).is_some_and(alike) {
        of(old).symmetric_difference(&of(new)).copied().collect()
    } else {
        of(old).union(&of(new)).copied().collect()
    }
}

/// The objects of a namespace.
pub(super) fn in_namespace<'a, V>(
    objects: &'a BTreeMap<ObjectKey, V>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectKey, &'a V)> {
    objects
        .range(ObjectKey::new(namespace, "")..)
        .take_while(move |(key, _)| key.namespace == namespace)
}

/// Puts or removes; whether anything differs now.
fn replace<K: Ord, V: PartialEq>(objects: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    if objects.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => objects.insert(key, value),
        None => objects.remove(&key),
    };
    true
}

pub(super) fn put<K: Ord, V: Ord + Clone>(
    sets: &mut BTreeMap<K, BTreeSet<V>>,
    at: K,
    key: &V,
    present: bool,
) {
    if present {
        sets.entry(at).or_default().insert(key.clone());
    } else if let Some(set) = sets.get_mut(&at) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(&at);
        }
    }
}
