//! Workloads as resources: pods, and endpoints that are no pods (such as the API server's).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use prost::Message;
use trefoil_api::names::{self, extension};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1::{Placement, Plane};
use trefoil_api::proto::type_url;

use super::apply::put;
use super::facts::{Endpoint, Pod, Slice};
use super::guards::Guarding;
use super::services::{alias, hostname, octets, resource_name};
use super::snapshot::{Encoded, ResourceKind};
use super::targets::Subject;
use super::{Index, ObjectKey};

/// A workload without the map of its services, whose order in the encoding would be arbitrary.
struct Draft {
    workload: message::Workload,
    services: BTreeMap<String, message::PortList>,
}

/// The missing field of `Workload`, in a fixed order.
#[derive(Clone, PartialEq, Message)]
struct ServicesField {
    #[prost(btree_map = "string, message", tag = "22")]
    services: BTreeMap<String, message::PortList>,
}

/// `Address` around a workload that is encoded already.
#[derive(Clone, PartialEq, Message)]
struct AddressField {
    #[prost(bytes = "vec", tag = "1")]
    workload: Vec<u8>,
}

impl Draft {
    fn encode(self) -> Encoded {
        let addresses = self.workload.addresses.iter().filter_map(|bytes| {
            let v4 = <[u8; 4]>::try_from(bytes.as_ref()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_ref()).map(IpAddr::from))
                .ok()
        });
        let aliases = addresses.map(|address| alias(&address)).collect();
        let services = self.services.keys().cloned().collect();
        let mut workload = self.workload.encode_to_vec();
        workload.extend(
            ServicesField {
                services: self.services,
            }
            .encode_to_vec(),
        );
        let value = AddressField { workload }.encode_to_vec();
        Encoded::new(
            ResourceKind::Address,
            &self.workload.uid,
            aliases,
            services,
            value,
        )
    }
}

/// What a pod's endpoints say of it.
#[derive(Default)]
struct Membership {
    keys: BTreeSet<ObjectKey>,
    ports: BTreeMap<String, message::PortList>,
    ready: Option<bool>,
}

impl Index {
    pub(super) fn compute_pod(&mut self, key: &ObjectKey) {
        let name = names::workload_uid(&key.namespace, &key.name);
        let pod = self.pods.get(key).cloned();
        let place = pod
            .as_ref()
            .filter(|pod| pod.may_be_acted_for(&key.namespace))
            .map(|pod| (pod.node.as_str(), pod.service_account.as_str()));
        self.snapshot.set_account(&key.namespace, &key.name, place);
        let served = pod.filter(|pod| !pod.terminal && !pod.addresses.is_empty());
        let resource = match served {
            None => {
                self.set_strict(&name, None);
                self.note_guarding(key, &Guarding::default(), BTreeSet::new());
                self.note_unread(key, false);
                None
            }
            Some(pod) => {
                let policy = self.strict_policy(key, &pod);
                let strict = self.set_strict(&name, policy);
                let membership = self.membership(key, &pod);
                let guarding = self.guarding(key, &pod, &membership.keys);
                let uninspected = self.uninspected_policies(key, &pod, &membership.keys, &guarding);
                self.note_guarding(key, &guarding, uninspected);
                self.note_unread(key, self.plane(&pod).0 == Plane::Node);
                Some(
                    self.pod_workload(key, &pod, membership, &guarding, strict)
                        .encode(),
                )
            }
        };
        let changes = &mut self.changes;
        self.snapshot.set(changes, ResourceKind::Address, &name, resource);
    }

    /// Remembers what a pod's guarding was made of, and what is wrong with it.
    fn note_guarding(&mut self, key: &ObjectKey, guarding: &Guarding, uninspected: BTreeSet<ObjectKey>) {
        self.pods_naming.set(key, guarding.chosen.clone());
        let differ = self.uninspected.set(key, uninspected);
        self.dirty.authorization.extend(differ);
        let differ = self.contending.set(key, guarding.contending.clone());
        self.dirty.service_statuses.extend(differ);
        self.news |= self.findings.set("pod", key, guarding.fault.clone());
    }

    /// Remembers whether a pod of the mesh has a plane that reads no HTTP: the routes of its namespace, and those of
    /// services that have no waypoint, say whose clients they are not applied for.
    fn note_unread(&mut self, key: &ObjectKey, unread: bool) {
        let before = self.unread.contains_key(&key.namespace);
        put(&mut self.unread, key.namespace.clone(), key, unread);
        if before != self.unread.contains_key(&key.namespace) {
            self.dirty.routes.extend(self.routes.keys().cloned());
        }
    }

    /// Policies that ask something of requests to a pod which no plane reads.
    fn uninspected_policies(
        &self,
        key: &ObjectKey,
        pod: &Pod,
        services: &BTreeSet<ObjectKey>,
        guarding: &Guarding,
    ) -> BTreeSet<ObjectKey> {
        let of_mesh = pod.may_be_acted_for(&key.namespace);
        let by_sidecar = self.plane(pod).0 == Plane::Sidecar;
        if !of_mesh || by_sidecar || guarding.is_inspected() || guarding.of_waypoint {
            return BTreeSet::new();
        }
        let subject = Subject {
            pod: key,
            labels: &pod.labels,
            services,
            waypoints: &guarding.named,
        };
        self.policies_that_need_http(&subject)
    }

    fn pod_workload(
        &self,
        key: &ObjectKey,
        pod: &Pod,
        membership: Membership,
        guarding: &Guarding,
        strict: Option<String>,
    ) -> Draft {
        let subject = Subject {
            pod: key,
            labels: &pod.labels,
            services: &membership.keys,
            waypoints: &guarding.named,
        };
        let mut policies = self.selected_policies(&subject);
        policies.extend(strict);
        policies.sort();
        let (workload_name, workload_type) = owner(key, pod);
        let (plane, withdrawing) = self.plane(pod);
        let redirected = matches!(plane, Plane::Node | Plane::Sidecar) && !withdrawing;
        // A waypoint listens for tunnels itself; nothing is redirected in its pods.
        let tunnel = if redirected || guarding.of_waypoint {
            message::TunnelProtocol::Hbone
        } else {
            message::TunnelProtocol::None
        };
        let label = |wanted: &[&str]| wanted.iter().find_map(|name| pod.labels.get(*name)).cloned();
        let healthy = membership.ready.unwrap_or(pod.ready);
        let workload = message::Workload {
            uid: names::workload_uid(&key.namespace, &key.name),
            name: key.name.clone(),
            namespace: key.namespace.clone(),
            hostname: own_name(key, pod),
            addresses: pod.addresses.iter().map(octets).collect(),
            tunnel_protocol: tunnel.into(),
            trust_domain: self.message_trust_domain(),
            service_account: pod.service_account.clone(),
            node: pod.node.clone(),
            canonical_name: label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
                .unwrap_or_else(|| workload_name.clone()),
            canonical_revision: label(&[
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ])
            .unwrap_or_else(|| "latest".into()),
            workload_type: workload_type.into(),
            workload_name,
            authorization_policies: policies,
            status: status(healthy),
            cluster_id: names::CLUSTER_ID.into(),
            locality: self.locality(&pod.node, ""),
            network_mode: if pod.host_network {
                message::NetworkMode::HostNetwork.into()
            } else {
                message::NetworkMode::Standard.into()
            },
            extensions: std::iter::once(self.placement(key, pod, plane))
                .chain(guarding.extension())
                .chain(self.network(key, pod))
                .collect(),
            waypoint: guarding.dialled.clone(),
            ..message::Workload::default()
        };
        Draft {
            workload,
            services: membership.ports,
        }
    }

    /// What redirects a pod: what its node's agent says, or, until that agent has spoken to this process, what
    /// it wrote on the pod. A control plane that restarts must not make peers drop their tunnels.
    fn plane(&self, pod: &Pod) -> (Plane, bool) {
        match self.placements.get(&pod.node) {
            Some(reported) => reported.get(&pod.uid).map_or((Plane::None, false), |placement| {
                let plane = Plane::try_from(placement.plane).unwrap_or(Plane::None);
                (plane, placement.withdrawing)
            }),
            None => (pod.redirection.unwrap_or(Plane::None), false),
        }
    }

    fn placement(&self, key: &ObjectKey, pod: &Pod, plane: Plane) -> message::Extension {
        let isolation = self.namespaces.get(&key.namespace).map(|one| one.isolation());
        let placement = Placement {
            plane: plane.into(),
            isolation: isolation.unwrap_or_default().into(),
            network_policy_selected: self.is_network_selected(key, pod),
            pod_uid: pod.uid.clone(),
        };
        message::Extension {
            name: extension::PLACEMENT.into(),
            config: Some(prost_types::Any {
                type_url: type_url::PLACEMENT.into(),
                value: placement.encode_to_vec(),
            }),
        }
    }

    fn message_trust_domain(&self) -> String {
        match self.trust_domain() {
            names::DEFAULT_TRUST_DOMAIN => String::new(),
            other => other.into(),
        }
    }

    fn locality(&self, node: &str, zone: &str) -> Option<message::Locality> {
        let mut locality = message::Locality::default();
        if let Some(node) = self.nodes.get(node) {
            locality.region.clone_from(&node.region);
            locality.zone.clone_from(&node.zone);
        }
        if locality.zone.is_empty() {
            locality.zone = zone.into();
        }
        (locality != message::Locality::default()).then_some(locality)
    }

    /// The services that a pod serves, with its ports.
    fn membership(&self, key: &ObjectKey, pod: &Pod) -> Membership {
        let by_pod = self.slices_by_pod.get(key).into_iter().flatten();
        let by_address = pod
            .addresses
            .iter()
            .filter_map(|address| self.slices_by_address.get(address))
            .flatten();
        let slices: BTreeSet<&ObjectKey> = by_pod.chain(by_address).collect();
        let mut membership = Membership::default();
        for slice_key in slices {
            let Some(slice) = self.slices.get(slice_key) else {
                continue;
            };
            let mine = |endpoint: &&Endpoint| self.pod_of(endpoint).as_ref() == Some(key);
            let service = ObjectKey::new(slice_key.namespace.clone(), slice.service.clone());
            for endpoint in slice.endpoints.iter().filter(mine) {
                let ready = membership.ready.unwrap_or(false) || endpoint.ready;
                membership.ready = Some(ready);
                if let Some(ports) = self.ports(&service, slice) {
                    let known = membership.ports.entry(resource_name(&service)).or_default();
                    for port in ports {
                        if known
                            .ports
                            .iter()
                            .all(|one| one.service_port != port.service_port)
                        {
                            known.ports.push(port);
                        }
                    }
                }
                membership.keys.insert(service.clone());
            }
        }
        for list in membership.ports.values_mut() {
            list.ports.sort_by_key(|port| port.service_port);
        }
        membership
    }

    /// The pod that an endpoint is: the one it names, else the one that has its address.
    fn pod_of(&self, endpoint: &Endpoint) -> Option<ObjectKey> {
        if endpoint.pod.is_some() {
            return endpoint.pod.clone();
        }
        let pods = endpoint
            .addresses
            .iter()
            .filter_map(|address| self.pods_by_address.get(address))
            .flatten();
        pods.filter(|key| {
            let pod = self.pods.get(*key);
            pod.is_some_and(|pod| !pod.terminal && !pod.host_network)
        })
        .min()
        .cloned()
    }

    /// A service's ports over a slice's endpoints; none if the service is not known.
    fn ports(&self, service: &ObjectKey, slice: &Slice) -> Option<Vec<message::Port>> {
        let service = self.services.get(service)?;
        let ports = service.ports.iter().filter_map(|port| {
            let named = slice.ports.iter().find(|(name, _)| *name == port.name);
            let target = named
                .map(|(_, number)| *number)
                .or_else(|| slice.ports.is_empty().then_some(port.target).flatten())?;
            Some(message::Port {
                service_port: port.port.into(),
                target_port: target.into(),
                app_protocol: port.protocol.into(),
            })
        });
        Some(ports.collect())
    }

    /// The endpoints of a slice that are no pods.
    pub(super) fn compute_slice(&mut self, key: &ObjectKey) {
        let mut drafts = BTreeMap::new();
        if let Some(slice) = self.slices.get(key) {
            let service = ObjectKey::new(key.namespace.clone(), slice.service.clone());
            let ports = self.ports(&service, slice);
            let strangers = slice.endpoints.iter().filter(|one| self.pod_of(one).is_none());
            for endpoint in strangers.filter(|one| !one.addresses.is_empty()) {
                let draft = self.endpoint_workload(key, &service, endpoint, ports.as_ref());
                drafts.insert(draft.workload.uid.clone(), draft);
            }
        }
        let names: BTreeSet<String> = drafts.keys().cloned().collect();
        let old = if names.is_empty() {
            self.slice_workloads.remove(key)
        } else {
            self.slice_workloads.insert(key.clone(), names.clone())
        };
        let changes = &mut self.changes;
        for gone in old.unwrap_or_default().difference(&names) {
            self.snapshot.set(changes, ResourceKind::Address, gone, None);
        }
        for (name, draft) in drafts {
            let resource = Some(draft.encode());
            self.snapshot.set(changes, ResourceKind::Address, &name, resource);
        }
    }

    fn endpoint_workload(
        &self,
        slice: &ObjectKey,
        service: &ObjectKey,
        endpoint: &Endpoint,
        ports: Option<&Vec<message::Port>>,
    ) -> Draft {
        let address = endpoint
            .addresses
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        let uid = format!(
            "{}/discovery.k8s.io/EndpointSlice/{slice}/{address}",
            names::CLUSTER_ID
        );
        let workload = message::Workload {
            uid,
            name: address,
            namespace: slice.namespace.clone(),
            addresses: endpoint.addresses.iter().map(octets).collect(),
            trust_domain: self.message_trust_domain(),
            service_account: "default".into(),
            node: endpoint.node.clone(),
            canonical_name: service.name.clone(),
            canonical_revision: "latest".into(),
            workload_type: message::WorkloadType::Pod.into(),
            workload_name: service.name.clone(),
            status: status(endpoint.ready),
            cluster_id: names::CLUSTER_ID.into(),
            locality: self.locality(&endpoint.node, &endpoint.zone),
            ..message::Workload::default()
        };
        let list = ports.map(|ports| {
            let ports = ports.clone();
            (resource_name(service), message::PortList { ports })
        });
        Draft {
            workload,
            services: list.into_iter().collect(),
        }
    }
}

/// What cluster DNS calls a pod that says which headless service it is of.
fn own_name(key: &ObjectKey, pod: &Pod) -> String {
    let Some((own, service)) = &pod.hostname else {
        return String::new();
    };
    let service = ObjectKey {
        name: service.clone(),
        ..key.clone()
    };
    format!("{own}.{}", hostname(&service))
}

fn status(healthy: bool) -> i32 {
    if healthy {
        message::WorkloadStatus::Healthy.into()
    } else {
        message::WorkloadStatus::Unhealthy.into()
    }
}

/// What a pod is a replica of.
fn owner(key: &ObjectKey, pod: &Pod) -> (String, message::WorkloadType) {
    let Some((kind, name)) = &pod.owner else {
        return (key.name.clone(), message::WorkloadType::Pod);
    };
    let without_suffix = |suffix: Option<&String>| {
        let stem = name.strip_suffix(suffix?.as_str())?.strip_suffix('-')?;
        Some(stem.to_owned())
    };
    match kind.as_str() {
        "ReplicaSet" => match without_suffix(pod.labels.get("pod-template-hash")) {
            Some(deployment) => (deployment, message::WorkloadType::Deployment),
            None => (name.clone(), message::WorkloadType::Pod),
        },
        "Job" => match name.rsplit_once('-') {
            // A CronJob's jobs are named after the minute that they were due in.
            Some((stem, minute)) if minute.len() >= 8 && minute.bytes().all(|c| c.is_ascii_digit()) => {
                (stem.to_owned(), message::WorkloadType::Cronjob)
            }
            _ => (name.clone(), message::WorkloadType::Job),
        },
        _ => (name.clone(), message::WorkloadType::Pod),
    }
}
