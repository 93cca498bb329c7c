//! What the waypoint of the test has learned of its mesh before: a client, a server without a plane behind a service
//! that uses the waypoint, and the waypoint itself, all on addresses of the loopback.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use trefoil_api::Identity;
use trefoil_api::names::{MESH_SETTINGS, port, workload_uid};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1::{MeshSettings, Outbound};
use trefoil_api::proto::type_url;
use trefoil_dataplane_process::remember::Remember;
use trefoil_dataplane_state::discovery::Held;

/// The application's port.
pub(crate) const APPLICATION: &str = "127.0.0.2:8080";
/// What clients ask the waypoint for.
pub(crate) const SERVICE: &str = "10.96.0.1:80";
/// The pod of the waypoint.
pub(crate) const POD: &str = "door-1";

/// The identity of a service account of the namespace.
pub(crate) fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).expect("an identity")
}

/// Writes it where a process looks that begins.
pub(crate) async fn remember(folder: &Path) {
    let mut held = Held::new();
    let settings = MeshSettings {
        outbound: Outbound::AllowAny.into(),
        connection_max_age: 3600,
        trust_domain: "cluster.local".into(),
        authority: None,
    };
    apply(&mut held, type_url::MESH_SETTINGS, MESH_SETTINGS, &settings);
    // There are none of these, which is known too.
    for type_url in [type_url::HTTP_AUTHORIZATION, type_url::HTTP_ROUTE] {
        let none = DeltaDiscoveryResponse {
            type_url: type_url.into(),
            ..DeltaDiscoveryResponse::default()
        };
        held.apply(none, &[]);
    }
    workloads(&mut held);
    services(&mut held);
    let (sender, receiver) = watch::channel(Held::new());
    sender.send_replace(held);
    drop(sender);
    Remember::new(folder.join("last-known-good"), Duration::ZERO)
        .run(receiver)
        .await;
}

fn to_application() -> message::Port {
    message::Port {
        service_port: 80,
        target_port: 8080,
        app_protocol: message::AppProtocol::Http11.into(),
    }
}

fn to_waypoint() -> message::Port {
    message::Port {
        service_port: port::HBONE.into(),
        target_port: port::HBONE.into(),
        ..message::Port::default()
    }
}

fn workloads(held: &mut Held) {
    for (pod, account, address, service) in [
        ("web", "web", [127, 0, 0, 1], None),
        ("cart", "cart", [127, 0, 0, 2], Some(("cart", to_application()))),
        (POD, "door", [127, 0, 0, 3], Some(("door", to_waypoint()))),
    ] {
        let workload = message::Workload {
            uid: workload_uid("shop", pod),
            name: pod.into(),
            namespace: "shop".into(),
            service_account: account.into(),
            addresses: vec![address.to_vec().into()],
            services: service
                .map(|(name, port)| (key(name), message::PortList { ports: vec![port] }))
                .into_iter()
                .collect(),
            ..message::Workload::default()
        };
        let address = message::Address {
            r#type: Some(message::address::Type::Workload(workload)),
        };
        apply(held, type_url::ADDRESS, &workload_uid("shop", pod), &address);
    }
}

fn services(held: &mut Held) {
    let waypoint = message::GatewayAddress {
        destination: Some(message::gateway_address::Destination::Hostname(
            message::NamespacedHostname {
                namespace: "shop".into(),
                hostname: hostname("door"),
            },
        )),
        hbone_mtls_port: port::HBONE.into(),
    };
    for (name, last, port, waypoint) in [
        ("cart", 1, to_application(), Some(waypoint)),
        ("door", 9, to_waypoint(), None),
    ] {
        let service = message::Service {
            name: name.into(),
            namespace: "shop".into(),
            hostname: hostname(name),
            addresses: vec![message::NetworkAddress {
                address: vec![10, 96, 0, last].into(),
                ..message::NetworkAddress::default()
            }],
            ports: vec![port],
            waypoint,
            ..message::Service::default()
        };
        let address = message::Address {
            r#type: Some(message::address::Type::Service(service)),
        };
        apply(held, type_url::ADDRESS, &key(name), &address);
    }
}

fn hostname(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

fn key(name: &str) -> String {
    format!("shop/{}", hostname(name))
}

/// One resource is received.
fn apply<M: Message>(held: &mut Held, url: &str, name: &str, message: &M) {
    let (type_url, value) = (url.to_owned(), message.encode_to_vec());
    let response = DeltaDiscoveryResponse {
        type_url: url.into(),
        resources: vec![Resource {
            name: name.into(),
            version: "1".into(),
            resource: Some(prost_types::Any { type_url, value }),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    };
    held.apply(response, &[]);
}
