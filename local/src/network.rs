//! Network namespaces, links, addresses and routes of the mesh on one machine. It knows nothing of pods'
//! objects or processes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Context;
use nlink::Connection;
use nlink::Route;
use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::link::{BridgeLink, VethLink};
use nlink::netlink::namespace::{self, CreateOptions, Netns};
use nlink::netlink::route::{Ipv4Route, Ipv6Route};
use nlink::netlink::types::route::RouteScope;
use tokio::net::{TcpSocket, TcpStream};

use super::mesh::{GATEWAY_V6, LAN_V4, LAN_V6, Mesh, NETNS_ROOT, Node};

/// What every namespace of ours is set to: addresses work at once (no duplicate detection), and packets
/// may come by another link than replies leave by.
const SYSCTLS: [(&str, &str); 4] = [
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];
/// What routers are set to.
const FORWARDING: [(&str, &str); 2] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
];

/// A connected pair of addresses of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct PodAddresses {
    /// The node that it is on.
    pub(crate) node: u8,
    /// Its number on the node.
    pub(crate) index: u8,
}

impl PodAddresses {
    /// IPv4.
    pub(crate) fn v4(self) -> Ipv4Addr {
        Node(self.node).pod_v4(self.index)
    }

    /// IPv6.
    pub(crate) fn v6(self) -> Ipv6Addr {
        Node(self.node).pod_v6(self.index)
    }

    /// The node's end of its link.
    pub(crate) fn link(self) -> String {
        format!("pod{}", self.index)
    }
}

/// Makes the network between the nodes, and the nodes' namespaces.
pub(crate) async fn make_lan(mesh: &Mesh, nodes: &[Node]) -> anyhow::Result<()> {
    let lan = make_namespace(mesh, &mesh.lan_netns(), true).await?;
    let connection = Connection::<Route>::new_in(&lan)?;
    connection.add_link(BridgeLink::new("lan0").stp(false)).await?;
    connection
        .add_address(Ipv4Address::new("lan0", LAN_V4, 24))
        .await?;
    connection
        .add_address(Ipv6Address::new("lan0", LAN_V6, 64).nodad())
        .await?;
    connection.set_link_up("lan0").await?;
    for node in nodes {
        make_node(mesh, &connection, *node)
            .await
            .with_context(|| format!("making the network of node {}", node.name()))?;
    }
    for node in nodes {
        route_to(&connection, *node).await?;
        let own = Connection::<Route>::new_in(mesh.node_netns(*node).as_str())?;
        for other in nodes.iter().filter(|other| *other != node) {
            route_to(&own, *other).await?;
        }
        own.add_route(Ipv4Route::default_route().gateway(LAN_V4)).await?;
        own.add_route(Ipv6Route::default_route().gateway(LAN_V6)).await?;
    }
    Ok(())
}

async fn make_node(mesh: &Mesh, lan: &Connection<Route>, node: Node) -> anyhow::Result<()> {
    let namespace = make_namespace(mesh, &mesh.node_netns(node), true).await?;
    let link = VethLink::new(node.name(), "eth0").peer_netns_fd(&namespace);
    lan.add_link(link).await?;
    lan.set_link_master(node.name(), "lan0").await?;
    lan.set_link_up(node.name()).await?;
    let own = Connection::<Route>::new_in(&namespace)?;
    own.add_address(Ipv4Address::new("eth0", node.address_v4(), 24))
        .await?;
    own.add_address(Ipv6Address::new("eth0", node.address_v6(), 64).nodad())
        .await?;
    own.add_address(Ipv4Address::new("lo", node.pod_v4(1), 32))
        .await?;
    own.add_address(Ipv6Address::new("lo", node.pod_v6(1), 128).nodad())
        .await?;
    own.set_link_up("eth0").await?;
    Ok(())
}

/// The pods of a node are behind its address.
async fn route_to(connection: &Connection<Route>, node: Node) -> anyhow::Result<()> {
    let v4 = Ipv4Route::from_addr(node.pod_v4(0), 24).gateway(node.address_v4());
    let v6 = Ipv6Route::from_addr(node.pod_v6(0), 64).gateway(node.address_v6());
    connection.add_route(v4).await?;
    connection.add_route(v6).await?;
    Ok(())
}

/// Makes a pod's namespace and its link to its node, both ends routed: nothing of a pod passes its node
/// unseen, as behind most CNI plugins.
pub(crate) async fn make_pod(mesh: &Mesh, netns: &str, addresses: PodAddresses) -> anyhow::Result<()> {
    let namespace = make_namespace(mesh, netns, false).await?;
    let node = Connection::<Route>::new_in(mesh.node_netns(Node(addresses.node)).as_str())?;
    let link = addresses.link();
    node.add_link(VethLink::new(&link, "eth0").peer_netns_fd(&namespace))
        .await?;
    node.add_address(Ipv6Address::new(&link, GATEWAY_V6, 64).nodad())
        .await?;
    node.set_link_up(link.as_str()).await?;

    let pod = Connection::<Route>::new_in(&namespace)?;
    pod.add_address(Ipv4Address::new("eth0", addresses.v4(), 32))
        .await?;
    pod.add_address(Ipv6Address::new("eth0", addresses.v6(), 128).nodad())
        .await?;
    pod.set_link_up("eth0").await?;
    let gateway = Node(addresses.node).pod_v4(1);
    pod.add_route(
        Ipv4Route::from_addr(gateway, 32)
            .dev("eth0")
            .scope(RouteScope::Link),
    )
    .await?;
    pod.add_route(Ipv4Route::default_route().gateway(gateway)).await?;
    pod.add_route(Ipv6Route::default_route().gateway(GATEWAY_V6).dev("eth0"))
        .await?;

    let v4 = Ipv4Route::from_addr(addresses.v4(), 32)
        .dev(&link)
        .scope(RouteScope::Link);
    node.add_route(v4.prefsrc(gateway)).await?;
    node.add_route(Ipv6Route::from_addr(addresses.v6(), 128).dev(&link))
        .await?;
    Ok(())
}

/// Removes a pod's link and namespace. Others may hold the namespace a little longer, so its link goes first.
pub(crate) async fn remove_pod(mesh: &Mesh, netns: &str, addresses: PodAddresses) -> anyhow::Result<()> {
    let node = Connection::<Route>::new_in(mesh.node_netns(Node(addresses.node)).as_str())?;
    if node.get_link_by_name(addresses.link().as_str()).await?.is_some() {
        node.del_link(addresses.link()).await?;
    }
    remove_namespace(netns)
}

/// A namespace that is made, or made anew, with loopback up.
async fn make_namespace(mesh: &Mesh, name: &str, router: bool) -> anyhow::Result<Netns> {
    let made = async {
        remove_namespace(name)?;
        let namespace = Netns::create_with(name, CreateOptions::new().owner(mesh.owner()))?;
        let sysctl = namespace.sysctl();
        sysctl.set_many(&SYSCTLS)?;
        if router {
            sysctl.set_many(&FORWARDING)?;
        }
        Connection::<Route>::new_in(&namespace)?.set_link_up("lo").await?;
        anyhow::Ok(namespace)
    };
    made.await
        .with_context(|| format!("making network namespace {name}"))
}

/// Removes a namespace that may be there.
pub(crate) fn remove_namespace(name: &str) -> anyhow::Result<()> {
    if !Path::new(NETNS_ROOT).join(name).exists() {
        return Ok(namespace::remove_owner_tag(name)?);
    }
    if namespace::delete(name).is_err() {
        // A name without a namespace: left by something that died between making the two.
        std::fs::remove_file(Path::new(NETNS_ROOT).join(name))?;
        namespace::remove_owner_tag(name)?;
    }
    Ok(())
}

/// Connects from within a namespace.
pub(crate) async fn connect_in(netns: &str, address: IpAddr, port: u16) -> anyhow::Result<TcpStream> {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let descriptor = Netns::open(netns)?.socket(family, kind, 0)?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(descriptor));
    Ok(socket.connect((address, port).into()).await?)
}
