//! The fixture: the mesh of the proxy's own tests, and waypoints in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use prometheus_client::registry::Registry;
use prost::Message;
use trefoil_api::names::{self, extension, port};
use trefoil_api::proto::istio::security::{Action, Authorization};
use trefoil_api::proto::istio::workload as message;
use trefoil_api::proto::trefoil::v1 as trefoil;
use trefoil_api::proto::type_url;
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::proxy::{Proxy, ProxyConfig, ProxyParts, Waypoint};
use trefoil_dataplane_core::sockets;
use trefoil_dataplane_core::telemetry::{Layer, Metrics};
use trefoil_dataplane_http::{Parts, Routes, Undeclared, telemetry};
use trefoil_waypoint::serve::serve;

use crate::lines::LINES;
use crate::mesh::{Mesh, TestPod, address, config, deny, pod};

/// A waypoint that is served.
pub(crate) struct Door {
    pub(crate) pod: TestPod,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) drain: Drain,
    pub(crate) routes: Routes,
    registry: Registry,
}

impl Door {
    fn new(mesh: &Mesh, name: &'static str, host: u8) -> Self {
        let pod = beside(mesh, name, host);
        let (mut registry, drain) = (Registry::default(), Drain::new());
        let metrics = Metrics::register(&mut registry);
        let proxy = Proxy::new(ProxyParts {
            store: mesh.store.clone(),
            certificates: mesh.certificates.clone(),
            metrics: metrics.clone(),
            config: ProxyConfig {
                plane: Layer::Waypoint,
                ..config()
            },
            drain: drain.clone(),
        });
        let waypoint = Waypoint {
            uid: format!("uid-{name}"),
            identity: pod.identity(),
            workload_uid: names::workload_uid("shop", name),
            hbone: sockets::listener(pod.at(port::HBONE)).unwrap(),
            dialer: pod.dialer.clone(),
        };
        let (routes, requests) = (Routes::default(), telemetry::Metrics::register(&mut registry));
        let parts = Parts {
            routes: routes.clone(),
            requests,
            undeclared: Undeclared::default(),
        };
        serve(&proxy, waypoint, parts, metrics);
        Self {
            pod,
            proxy,
            drain,
            routes,
            registry,
        }
    }

    /// Its own service.
    pub(crate) fn key(&self) -> String {
        key(self.pod.name)
    }

    /// The metrics, as they are scraped.
    pub(crate) fn metrics(&self) -> String {
        let mut shown = String::new();
        prometheus_client::encoding::text::encode(&mut shown, &self.registry).unwrap();
        shown
    }

    /// Forwarded identities that it did not believe.
    pub(crate) fn stripped(&self) -> u64 {
        stripped(&self.metrics())
    }
}

/// A pod beside the client's and the server's, of another number than 1 and 2.
pub(crate) fn beside(mesh: &Mesh, name: &'static str, host: u8) -> TestPod {
    let IpAddr::V4(client) = mesh.client.address else {
        unreachable!("pods of tests are IPv4")
    };
    let [first, second, network, _] = client.octets();
    pod(name, Ipv4Addr::new(first, second, network, host))
}

/// The sum of what the metrics shown say, of one process or of several.
pub(crate) fn stripped(metrics: &str) -> u64 {
    let counts = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("trefoil_stripped_peers_total "));
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

/// Two pods, and a waypoint `door` that serves `cart`: its service, and whatever else reaches its pod.
pub(crate) struct Guarded {
    pub(crate) mesh: Mesh,
    pub(crate) door: Door,
    /// Where the server's application listens.
    pub(crate) application: SocketAddr,
    protocol: message::AppProtocol,
    /// The service's address and port, which lead there.
    pub(crate) service: SocketAddr,
}

/// What guards a workload.
pub(crate) enum Guard<'d> {
    By(&'d Door),
    Closed(&'static str),
    Nobody,
}

impl Guarded {
    pub(crate) async fn new() -> Self {
        Self::echoing(Mesh::new().await).await
    }

    pub(crate) async fn same_node() -> Self {
        Self::echoing(Mesh::same_node().await).await
    }

    async fn echoing(mesh: Mesh) -> Self {
        let application = mesh.server.echo().await;
        Self::of(mesh, application, message::AppProtocol::Tcp)
    }

    /// With an application of the server's, whose port is declared to speak this.
    pub(crate) fn of(mesh: Mesh, application: SocketAddr, protocol: message::AppProtocol) -> Self {
        // Heard from the beginning.
        let _ = &*LINES;
        let door = Door::new(&mesh, "door", 3);
        let service = SocketAddr::new([10, 96, 0, 1].into(), 80);
        let guarded = Self {
            mesh,
            door,
            application,
            protocol,
            service,
        };
        guarded.known_waypoint(&guarded.door, true);
        guarded.guard(&guarded.mesh.server, Guard::By(&guarded.door));
        guarded.known_service(Some(&guarded.door));
        guarded
    }

    /// Another waypoint.
    pub(crate) fn another(&self) -> Door {
        let door = Door::new(&self.mesh, "gate", 4);
        self.known_waypoint(&door, true);
        door
    }

    /// A waypoint's pod and its service become known.
    pub(crate) fn known_waypoint(&self, door: &Door, healthy: bool) {
        let (uid, mut own) = address(&door.pod);
        let workload = workload(&mut own);
        workload.status = i32::from(!healthy);
        let port = message::Port {
            service_port: port::HBONE.into(),
            target_port: port::HBONE.into(),
            app_protocol: 0,
        };
        let ports = vec![port];
        workload
            .services
            .insert(door.key(), message::PortList { ports: ports.clone() });
        let service = named(door.pod.name, [10, 96, 0, 9].into(), ports);
        self.mesh
            .apply(type_url::ADDRESS, &[(uid, own), (door.key(), service)]);
    }

    /// A pod serves `cart`, and this guards it.
    pub(crate) fn guard(&self, pod: &TestPod, guard: Guard<'_>) {
        let guard = match guard {
            Guard::By(door) => Some(trefoil::Guard {
                identity: door.pod.identity().to_string(),
                service: door.key(),
                closed: String::new(),
            }),
            Guard::Closed(reason) => Some(trefoil::Guard {
                closed: reason.into(),
                ..trefoil::Guard::default()
            }),
            Guard::Nobody => None,
        };
        let (uid, mut own) = address(pod);
        let workload = workload(&mut own);
        workload.services.insert(
            key("cart"),
            message::PortList {
                ports: vec![self.port()],
            },
        );
        workload.extensions.extend(guard.map(|guard| message::Extension {
            name: extension::GUARD.into(),
            config: Some(prost_types::Any {
                type_url: type_url::GUARD.into(),
                value: guard.encode_to_vec(),
            }),
        }));
        self.mesh.apply(type_url::ADDRESS, &[(uid, own)]);
    }

    /// The service becomes known, and what it is reached through.
    pub(crate) fn known_service(&self, through: Option<&Door>) {
        let mut service = named("cart", self.service.ip(), vec![self.port()]);
        let Some(message::address::Type::Service(of)) = &mut service.r#type else {
            unreachable!("a service")
        };
        of.waypoint = through.map(|door| message::GatewayAddress {
            destination: Some(message::gateway_address::Destination::Hostname(
                message::NamespacedHostname {
                    namespace: "shop".into(),
                    hostname: hostname(door.pod.name),
                },
            )),
            hbone_mtls_port: port::HBONE.into(),
        });
        self.mesh.apply(type_url::ADDRESS, &[(key("cart"), service)]);
    }

    fn port(&self) -> message::Port {
        message::Port {
            service_port: self.service.port().into(),
            target_port: self.application.port().into(),
            app_protocol: self.protocol.into(),
        }
    }
}

/// A policy that allows a principal, and thereby nobody else.
pub(crate) fn allow(name: &str, principal: &trefoil_api::Identity) -> Authorization {
    Authorization {
        action: Action::Allow.into(),
        ..deny(name, principal)
    }
}

fn workload(address: &mut message::Address) -> &mut message::Workload {
    match &mut address.r#type {
        Some(message::address::Type::Workload(workload)) => workload,
        _ => unreachable!("a workload"),
    }
}

fn named(name: &str, address: IpAddr, ports: Vec<message::Port>) -> message::Address {
    let IpAddr::V4(address) = address else {
        unreachable!("services of tests are IPv4")
    };
    let service = message::Service {
        name: name.into(),
        namespace: "shop".into(),
        hostname: hostname(name),
        addresses: vec![message::NetworkAddress {
            address: address.octets().to_vec().into(),
            ..message::NetworkAddress::default()
        }],
        ports,
        ..message::Service::default()
    };
    message::Address {
        r#type: Some(message::address::Type::Service(service)),
    }
}

fn hostname(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

/// The key of a service.
pub(crate) fn key(name: &str) -> String {
    format!("shop/{}", hostname(name))
}
