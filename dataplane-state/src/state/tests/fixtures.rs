//! What a control plane would say, for tests of those who hear it. It asserts that what it makes is understood.

use prost::Message;
use prost_types::Any;
use trefoil_api::names::extension as extension_name;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::security::{self, Authorization};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::type_url;

use super::{Store, Workload, extension};

/// A response of one type.
#[must_use]
pub fn response<M: Message>(
    type_url: &str,
    resources: &[(&str, M)],
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    let resource = |(name, message): &(&str, M)| Resource {
        name: (*name).into(),
        version: "1".into(),
        resource: Some(Any {
            type_url: type_url.into(),
            value: message.encode_to_vec(),
        }),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        type_url: type_url.into(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).into()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// A workload of the namespace `shop`, in the mesh.
#[must_use]
pub fn workload(name: &str, address: [u8; 4]) -> message::Workload {
    message::Workload {
        uid: format!("Kubernetes//Pod/shop/{name}"),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![address.to_vec().into()],
        service_account: name.into(),
        tunnel_protocol: message::TunnelProtocol::Hbone.into(),
        node: "n1".into(),
        ..message::Workload::default()
    }
}

/// The workload, serving a service.
#[must_use]
pub fn serving(mut workload: message::Workload, service: &str, port: u32, target: u32) -> message::Workload {
    let port = message::Port {
        service_port: port,
        target_port: target,
        app_protocol: 0,
    };
    let list = message::PortList { ports: vec![port] };
    workload.services.insert(service.into(), list);
    workload
}

/// The workload, with the waypoint of this account as its guard.
#[must_use]
pub fn guarded(mut workload: message::Workload, waypoint: &str) -> message::Workload {
    let guard = extension::Guard {
        identity: format!("spiffe://cluster.local/ns/shop/sa/{waypoint}"),
        service: format!("shop/{waypoint}.shop.svc.cluster.local"),
        closed: String::new(),
    };
    workload.extensions.push(message::Extension {
        name: extension_name::GUARD.into(),
        config: Some(Any {
            type_url: type_url::GUARD.into(),
            value: guard.encode_to_vec(),
        }),
    });
    workload
}

/// The workload, in these groups, and letting those of one group in to a port, and nobody else.
#[must_use]
pub fn fenced(
    mut workload: message::Workload,
    groups: &[&str],
    lets_in: Option<(&str, u32)>,
) -> message::Workload {
    let policies = lets_in.map(|(group, port)| extension::NetworkPolicy {
        name: "shop/fence".into(),
        rules: vec![extension::NetworkRule {
            peers: vec![extension::NetworkPeer {
                peer: Some(extension::network_peer::Peer::Group(group.into())),
            }],
            ports: vec![extension::PortRange {
                first: port,
                last: port,
            }],
        }],
    });
    let network = extension::Network {
        groups: groups.iter().map(|one| (*one).to_owned()).collect(),
        policies: policies.into_iter().collect(),
    };
    workload.extensions.push(message::Extension {
        name: extension_name::NETWORK.into(),
        config: Some(Any {
            type_url: type_url::NETWORK.into(),
            value: network.encode_to_vec(),
        }),
    });
    workload
}

/// What is reached through the waypoint of this name.
#[must_use]
pub fn waypoint(name: &str) -> Option<message::GatewayAddress> {
    let hostname = message::NamespacedHostname {
        namespace: "shop".into(),
        hostname: format!("{name}.shop.svc.cluster.local"),
    };
    Some(message::GatewayAddress {
        destination: Some(message::gateway_address::Destination::Hostname(hostname)),
        hbone_mtls_port: 15008,
    })
}

/// As a store understands it.
#[must_use]
pub fn known_workload(workload: &message::Workload) -> Workload {
    let store = Store::new();
    assert_eq!(store.apply(&of_workloads(std::slice::from_ref(workload))), []);
    Workload::clone(&store.workload(&workload.uid).expect("held"))
}

/// A service of the namespace `shop`.
#[must_use]
pub fn service(name: &str, address: [u8; 4], port: u32) -> message::Service {
    message::Service {
        name: name.into(),
        namespace: "shop".into(),
        hostname: format!("{name}.shop.svc.cluster.local"),
        addresses: vec![message::NetworkAddress {
            address: address.to_vec().into(),
            ..message::NetworkAddress::default()
        }],
        ports: vec![message::Port {
            service_port: port,
            target_port: 0,
            app_protocol: 0,
        }],
        ..message::Service::default()
    }
}

/// These workloads are.
#[must_use]
pub fn of_workloads(workloads: &[message::Workload]) -> DeltaDiscoveryResponse {
    let addresses: Vec<_> = workloads
        .iter()
        .map(|workload| {
            let address = message::Address {
                r#type: Some(message::address::Type::Workload(workload.clone())),
            };
            (workload.uid.as_str(), address)
        })
        .collect();
    response(type_url::ADDRESS, &addresses, &[])
}

/// These services are.
#[must_use]
pub fn of_services(services: &[message::Service]) -> DeltaDiscoveryResponse {
    let keys: Vec<_> = services
        .iter()
        .map(|service| format!("{}/{}", service.namespace, service.hostname))
        .collect();
    let addresses: Vec<_> = services
        .iter()
        .zip(&keys)
        .map(|(service, key)| {
            let address = message::Address {
                r#type: Some(message::address::Type::Service(service.clone())),
            };
            (key.as_str(), address)
        })
        .collect();
    response(type_url::ADDRESS, &addresses, &[])
}

/// Resources of these names are no more.
#[must_use]
pub fn removal(type_url: &str, names: &[&str]) -> DeltaDiscoveryResponse {
    response::<Authorization>(type_url, &[], names)
}

/// These policies are.
#[must_use]
pub fn of_policies(policies: &[Authorization]) -> DeltaDiscoveryResponse {
    let names: Vec<_> = policies
        .iter()
        .map(|policy| format!("{}/{}", policy.namespace, policy.name))
        .collect();
    let named: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(policies.iter().cloned())
        .collect();
    response(type_url::AUTHORIZATION, &named, &[])
}

/// A policy of the namespace `shop` without rules.
#[must_use]
pub fn policy(name: &str, scope: security::Scope, action: security::Action) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: scope.into(),
        action: action.into(),
        ..Authorization::default()
    }
}
