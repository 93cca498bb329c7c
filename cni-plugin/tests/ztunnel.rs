//! Somebody else's node proxy, fed by our agent, behind our redirection: a real ztunnel, from `ZTUNNEL`. Needs
//! root.
#![allow(clippy::unwrap_used)]

mod lab;
mod node;

use std::process::{Child, Command, Stdio};

use lab::{CLIENT, POD, accept, dial, exchange, listen};
use node::{Node, until};
use trefoil_api::proto::trefoil::v1::Plane;

struct Ztunnel(Child);

impl Drop for Ztunnel {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts a ztunnel that knows the pod as a workload without a tunnel.
fn start(program: &str, node: &Node) -> Ztunnel {
    let workload = format!(
        "workloads:\n- uid: Kubernetes//Pod/shop/web\n  name: web\n  namespace: shop\n  serviceAccount: web\n  \
         trustDomain: cluster.local\n  workloadIps: [\"{POD}\"]\n  protocol: HBONE\n  node: node-1\n  \
         network: \"\"\n  workloadName: web\n  canonicalName: web\n  canonicalRevision: v1\n  \
         clusterId: Kubernetes\n  services: {{}}\n"
    );
    let config = node.folder.path().join("ztunnel.yaml");
    std::fs::write(&config, workload).unwrap();
    let output = || {
        if std::env::var_os("SHOW_LOGS").is_some() {
            Stdio::inherit()
        } else {
            Stdio::null()
        }
    };
    let child = node.lab.client.run(|| {
        Command::new(program)
            .env("PROXY_MODE", "shared")
            .env("INPOD_UDS", node.run_dir().join("pods.sock"))
            .env("LOCAL_XDS_PATH", &config)
            .env("XDS_ADDRESS", "")
            .env("FAKE_CA", "true")
            .env("NODE_NAME", "node-1")
            .env("CLUSTER_ID", "Kubernetes")
            .stdout(output())
            .stderr(output())
            .spawn()
    });
    Ztunnel(child.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_ztunnel_serves_a_pod_that_we_feed_and_redirect() {
    let Ok(program) = std::env::var("ZTUNNEL") else {
        eprintln!("NOT TESTED: no ztunnel, ZTUNNEL is not set");
        return;
    };
    let node = Node::new("ambient").await;
    node.api.put_pod(node.pod("shop", false));
    node.lab.route_to_client().await;
    let mut ztunnel = start(&program, &node);
    node.add_in_time("shop").await;
    assert_eq!(node.plane().await, Plane::Node);

    let outside = listen(&node.lab.client, 80);
    let mut dialled = dial(&node.lab.pod, CLIENT, 80).unwrap();
    let (mut accepted, peer) = accept(&outside).unwrap();
    assert_eq!(peer.ip(), POD);
    exchange(&mut dialled, &mut accepted);

    let application = listen(&node.lab.pod, 8081);
    let mut arriving = dial(&node.lab.client, POD, 8081).unwrap();
    let (mut served, _) = accept(&application).unwrap();
    exchange(&mut arriving, &mut served);

    node.control_plane.acknowledge(&[]);
    node.api
        .put_namespace("shop", &serde_json::json!({"trefoil.dev/dataplane-mode": "none"}));
    node.redirected(Plane::None).await;
    // It cuts what it carried for the pod; new connections are the pod's own.
    dial(&node.lab.pod, CLIENT, 80).unwrap();
    assert_eq!(accept(&outside).unwrap().1.ip(), POD);
    until("ztunnel lives", async || ztunnel.0.try_wait().unwrap().is_none()).await;
}
