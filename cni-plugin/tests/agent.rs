//! The agent as a process, with the kernel underneath and everything around it made by the tests. Needs root.
#![allow(clippy::unwrap_used)]

mod lab;
mod node;

use std::net::IpAddr;

use lab::{CLIENT, POD, accept, dial, listen};
use node::proxy::Proxy;
use node::{Node, UID, previous_result, until};
use serde_json::json;
use trefoil_api::names::probe;
use trefoil_api::proto::trefoil::descriptors::{List, Request, Response, request};
use trefoil_api::proto::trefoil::v1::Plane;
use trefoil_cni::kernel::{self, inspect};
use trefoil_cni::redirection;
use trefoil_cni::runtime::RuntimeError;

const MODE: &str = "trefoil.dev/dataplane-mode";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_starts_on_the_node_plane_and_only_there() {
    let node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", false));
    let proxy = Proxy::start(&node.run_dir());
    let result = node.add_in_time("shop").await;
    assert_eq!(result, previous_result(), "passed on unchanged");
    assert_eq!(node.plane().await, Plane::Node);
    assert!(proxy.serves(UID));
    until("the control plane knows", async || {
        node.control_plane.plane(UID) == Some(Plane::Node)
    })
    .await;
    until("people can see it", async || {
        node.api
            .annotation("shop", "web", "trefoil.dev/redirection")
            .as_deref()
            == Some("node")
    })
    .await;
    // The declared probe port is open to the host's probes.
    probes_reach_the_application(&node).await;

    node.del("shop").await;
    until("the proxy is told", async || !proxy.serves(UID)).await;
    node.api.delete_pod(&node.pod("shop", false));
    until("the control plane is told", async || {
        node.control_plane.plane(UID).is_none()
    })
    .await;
}

async fn probes_reach_the_application(node: &Node) {
    node.lab.route_to_client().await;
    let application = listen(&node.lab.pod, 8080);
    application.set_nonblocking(true).unwrap();
    let reserved = IpAddr::from(probe::SOURCE_V4);
    until("the host rewrites probes", async || {
        dial(&node.lab.client, POD, 8080).unwrap();
        application
            .accept()
            .is_ok_and(|(_, peer)| peer.ip().to_canonical() == reserved)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outside_the_mesh_is_untouched() {
    let node = Node::new("ambient").await;
    node.api.put_pod(node.pod("plain", false));
    node.add_in_time("plain").await;
    assert!(!inspect(&node.lab.pod).await.unwrap().enrolled);
    until("the control plane knows", async || {
        node.control_plane.plane(UID) == Some(Plane::None)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_follows_its_namespaces_label() {
    let node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", true));
    let proxy = Proxy::start(&node.run_dir());
    node.add_in_time("shop").await;
    let captured = listeners_of(&proxy);
    // What root dials from the host gets the reserved source, which the pod answers by its default route.
    node.lab.route_to_client().await;
    let mut established = dial(&node.lab.pod, CLIENT, 80).unwrap();
    let (mut accepted, _) = accept(&captured).unwrap();

    // To the sidecar: not before it listens.
    node.api.put_namespace("shop", &json!({MODE: "sidecar"}));
    let outbound = listen(&node.lab.pod, 15101);
    let inbound = listen(&node.lab.pod, 15106);
    assert_eq!(node.plane().await, Plane::Node);
    let _tunnels = listen(&node.lab.pod, 15108);
    node.redirected(Plane::Sidecar).await;
    dial(&node.lab.pod, CLIENT, 80).unwrap();
    accept(&outbound).unwrap();
    dial(&node.lab.client, POD, 80).unwrap();
    accept(&inbound).unwrap();
    lab::exchange(&mut established, &mut accepted);
    until("the proxy is told last", async || !proxy.serves(UID)).await;
    until("the control plane knows", async || {
        node.control_plane.plane(UID) == Some(Plane::Sidecar)
    })
    .await;

    // And back. The test's duplicate of the listener would be in the way of a new one.
    drop(captured);
    node.api.put_namespace("shop", &json!({MODE: "ambient"}));
    node.redirected(Plane::Node).await;
    assert!(proxy.serves(UID), "it listened before anybody was sent to it");

    // Out of the mesh: peers are told first.
    node.control_plane.acknowledge(&["node-2"]);
    node.api.put_namespace("shop", &json!({MODE: "none"}));
    node.redirected(Plane::None).await;
    assert_eq!(node.control_plane.withdrawn(), [UID]);
    until("the proxy is told", async || !proxy.serves(UID)).await;
    lab::exchange(&mut established, &mut accepted);
}

fn listeners_of(proxy: &Proxy) -> std::net::TcpListener {
    let pods = proxy.pods.lock().unwrap();
    pods[UID][0].try_clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_sidecar_begins_redirected_before_the_sidecar_runs() {
    let node = Node::new("sidecar").await;
    node.api.put_pod(node.pod("shop", true));
    node.add_in_time("shop").await;
    assert_eq!(node.plane().await, Plane::Sidecar);
    assert!(
        dial(&node.lab.pod, CLIENT, 80).is_err(),
        "nothing leaves in the clear"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_comes_back_to_what_it_left() {
    let mut node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", false));
    let proxy = Proxy::start(&node.run_dir());
    node.add_in_time("shop").await;
    node.kill_agent();

    let error = node.add("shop").await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { code: 11, .. }), "{error}");
    node.add("kube-system").await.unwrap();
    node.add("trefoil-system").await.unwrap();
    assert_eq!(node.plane().await, Plane::Node);

    let before = proxy.snapshots().len();
    node.start_agent();
    until("the proxy gets a snapshot", async || {
        proxy.snapshots().len() > before
    })
    .await;
    assert_eq!(proxy.snapshots().last().unwrap(), &[UID]);
    assert!(proxy.serves(UID));
    node.api.put_namespace("shop", &json!({MODE: "none"}));
    node.control_plane.acknowledge(&[]);
    node.redirected(Plane::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_the_proxy_gets_what_was_known() {
    let mut node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", false));
    let proxy = Proxy::start(&node.run_dir());
    node.add_in_time("shop").await;
    node.kill_agent();
    node.api.stop();
    drop(proxy);
    node.start_agent();
    let proxy = Proxy::start(&node.run_dir());
    until("the proxy gets a snapshot", async || {
        !proxy.snapshots().is_empty()
    })
    .await;
    assert_eq!(proxy.snapshots()[0], [UID]);
    assert_eq!(node.plane().await, Plane::Node);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_proxy_a_pod_waits() {
    let node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", false));
    node.agent_listens().await;
    let error = node.add("shop").await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { code: 11, .. }), "{error}");
    assert!(error.to_string().contains("node proxy"), "{error}");
    assert_eq!(node.plane().await, Plane::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_switches_it_converges() {
    let mut node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", true));
    node.control_plane.acknowledge(&[]);
    let proxy = Proxy::start(&node.run_dir());
    node.add_in_time("shop").await;
    let _sidecar = [15101, 15106, 15108].map(|port| listen(&node.lab.pod, port));
    let modes = [
        ("sidecar", Plane::Sidecar),
        ("ambient", Plane::Node),
        ("none", Plane::None),
    ];
    for round in 0..9 {
        let (mode, plane) = modes[round % modes.len()];
        node.api.put_namespace("shop", &json!({MODE: mode}));
        // Each time a little later.
        for _ in 0..round * 4 {
            inspect(&node.lab.pod).await.unwrap();
        }
        node.kill_agent();
        node.start_agent();
        node.redirected(plane).await;
        until("the control plane knows", async || {
            node.control_plane.plane(UID) == Some(plane)
        })
        .await;
        until("the proxy serves it, or not", async || {
            proxy.serves(UID) == (plane == Plane::Node)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ran_out_of_descriptors_accepts_again() {
    let node = Node::new("ambient").await;
    node.agent_listens().await;
    let before = node.limit_agents_descriptors(3);
    let proxy = Proxy::start(&node.run_dir());
    until("it says that it cannot accept", async || {
        node.agent_says("was not accepted")
    })
    .await;
    node.limit_agents_descriptors(before);
    until("the proxy gets a snapshot", async || {
        !proxy.snapshots().is_empty()
    })
    .await;
    let store = node.run_dir().join("descriptors.sock");
    assert!(trefoil_packets::connect(&store).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_runs_is_not_sent_to_a_sidecar_that_does_not_listen() {
    let node = Node::new("none").await;
    node.api.put_pod(node.pod("shop", true));
    node.add_in_time("shop").await;
    assert_eq!(node.plane().await, Plane::None);
    node.api.put_namespace("shop", &json!({MODE: "sidecar"}));
    until("it says why it waits", async || {
        node.agent_says("nothing listens on [15101, 15106, 15108]")
    })
    .await;
    assert_eq!(node.plane().await, Plane::None);
    let _sidecar = [15101, 15106, 15108].map(|port| listen(&node.lab.pod, port));
    node.redirected(Plane::Sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_rules_come_back() {
    let node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", false));
    let _proxy = Proxy::start(&node.run_dir());
    node.add_in_time("shop").await;
    // The first times may be news of the pod, such as its annotation; the last is the agent looking by itself.
    for _ in 0..3 {
        let removed = kernel::remove(&node.lab.pod, redirection::POD_TABLE).await;
        assert!(removed.unwrap());
        node.redirected(Plane::Node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_found_pods_and_the_node_proxy_are_known_as_before() {
    const PROXY: &str = "0f3a9c1e-0000-4000-8000-00000000000f";
    let mut node = Node::new("ambient").await;
    node.api.put_namespace("trefoil-system", &json!({}));
    node.api.put_pod(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "trefoil-node", "namespace": "trefoil-system", "uid": PROXY},
        "spec": {
            "nodeName": "node-1", "serviceAccountName": "trefoil-node", "hostNetwork": true,
            "containers": [{"name": "proxy"}],
        },
        "status": {"phase": "Running"},
    }));
    node.show_process(std::process::id(), PROXY);
    // No CNI call ever told of this pod.
    node.show_process(1_000_000_000, UID);
    node.api.put_pod(node.pod("shop", false));
    let proxy = Proxy::start(&node.run_dir());
    node.redirected(Plane::Node).await;
    let state = node.folder.path().join("state");
    until("both are remembered", async || {
        let known = std::fs::read_to_string(state.join("namespaces.json")).unwrap_or_default();
        known.contains(PROXY) && state.join("pods").join(format!("{UID}.json")).exists()
    })
    .await;

    node.kill_agent();
    node.api.stop();
    drop(proxy);
    node.start_agent();
    until("the node proxy may use the store", async || {
        is_answered_by_the_store(&node).await.unwrap_or(false)
    })
    .await;
    let proxy = Proxy::start(&node.run_dir());
    until("the proxy gets a snapshot", async || {
        !proxy.snapshots().is_empty()
    })
    .await;
    assert_eq!(proxy.snapshots()[0], [UID]);
}

async fn is_answered_by_the_store(node: &Node) -> Result<bool, trefoil_packets::PacketError> {
    let store = trefoil_packets::connect(&node.run_dir().join("descriptors.sock")).await?;
    let payload = Some(request::Payload::List(List {}));
    store.send(&Request { payload }, &[]).await?;
    Ok(store.receive::<Response>().await?.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn late_tunnels_to_a_pod_that_left_are_served_for_a_while() {
    let node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", true));
    node.control_plane.acknowledge(&[]);
    let proxy = Proxy::start(&node.run_dir());
    node.lab.route_to_client().await;
    node.add_in_time("shop").await;
    node.api.put_namespace("shop", &json!({MODE: "none"}));
    node.redirected(Plane::None).await;
    until("the control plane knows", async || {
        node.control_plane.plane(UID) == Some(Plane::None)
    })
    .await;
    assert!(proxy.serves(UID), "a worker may not have heard of it");
    dial(&node.lab.client, POD, 15008).unwrap();
    until("the proxy is told", async || !proxy.serves(UID)).await;

    let sidecar = [15101, 15106, 15108].map(|port| listen(&node.lab.pod, port));
    node.api.put_namespace("shop", &json!({MODE: "sidecar"}));
    node.redirected(Plane::Sidecar).await;
    node.api.put_namespace("shop", &json!({MODE: "none"}));
    node.redirected(Plane::None).await;
    dial(&node.lab.client, POD, 15008).unwrap();
    accept(&sidecar[2]).unwrap();
    until("tunnels end", async || {
        dial(&node.lab.client, POD, 15008).is_err()
    })
    .await;
}
