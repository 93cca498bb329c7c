//! Bytes through workers, without a control plane: from what was known last, with keys that the agent kept.
//! Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::sync::Arc;

use support::known::{Authority, keep_keys, remember, services, workload};
use support::wire::{answer, application, call, converse, link, redirect};
use support::{Agent, NodeProxy, Pod, kill, until};
use trefoil_api::proto::trefoil::v1::Isolation;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/default";
const VAULT: &str = "spiffe://cluster.local/ns/bank/sa/default";

/// Two pods whose application and redirection are in place.
fn pods() -> (Pod, Pod) {
    let (cart, vault) = (
        Pod::new("uid-1", "shop", "cart"),
        Pod::new("uid-2", "bank", "vault"),
    );
    link(&cart, &vault);
    application(&vault);
    redirect(&cart);
    redirect(&vault);
    (cart, vault)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_proxy_serves_a_large_mesh_with_restored_keys_and_no_control_plane() {
    let agent = Agent::start();
    let (cart, vault) = pods();
    // Selected by a NetworkPolicy: bytes go through HBONE, so that the keys are needed.
    let mut known = services(3000);
    known.push(workload(&cart, [10, 9, 0, 1], Isolation::Shared, true));
    known.push(workload(&vault, [10, 9, 0, 2], Isolation::Shared, true));
    remember(&agent, known).await;
    let authority = Arc::new(Authority::new());
    keep_keys(&agent, &authority, "shared", &[CART, VAULT]).await;

    let node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&cart, &vault]).await;
    let (worker, _) = node.serves("shared", &["uid-1", "uid-2"]).await;
    assert_eq!(answer(call(&cart)), "10.9.0.1", "the client's address is kept");
    let certificates = node.asks("/certificates").await.unwrap();
    for certificate in certificates["certificates"].as_array().unwrap() {
        assert_eq!(
            (&certificate["state"], &certificate["worker"]),
            (&"valid".into(), &"shared".into())
        );
    }
    let awaited = node.asks("/status").await.unwrap()["awaiting"].clone();
    assert_eq!(awaited, serde_json::json!([]));

    // The worker's successor gets listeners, resources and keys, and serves what was made meanwhile.
    kill(worker);
    let meanwhile: Vec<_> = (0..20).map(|_| call(&cart)).collect();
    for stream in meanwhile {
        assert_eq!(answer(stream), "10.9.0.1");
    }
    let (successor, _) = node.serves("shared", &["uid-1", "uid-2"]).await;
    assert_ne!(successor, worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_namespaces_have_workers_of_their_own_and_reach_each_other() {
    let agent = Agent::start();
    let (cart, vault) = pods();
    let known = vec![
        workload(&cart, [10, 9, 0, 1], Isolation::Namespace, false),
        workload(&vault, [10, 9, 0, 2], Isolation::Workload, false),
    ];
    remember(&agent, known).await;
    let authority = Arc::new(Authority::new());
    keep_keys(&agent, &authority, "namespace/shop", &[CART]).await;
    keep_keys(&agent, &authority, "workload/uid-2", &[VAULT]).await;
    let node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&cart, &vault]).await;
    let (_, first) = node.serves("namespace/shop", &["uid-1"]).await;
    let (_, second) = node.serves("workload/uid-2", &["uid-2"]).await;
    assert_ne!(first, second);
    assert_eq!(answer(call(&cart)), "10.9.0.1");
    let certificates = node.asks("/certificates").await.unwrap();
    let mut held: Vec<_> = certificates["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["worker"].as_str().unwrap(), one["identity"].as_str().unwrap()))
        .collect();
    held.sort_unstable();
    assert_eq!(held, [("namespace/shop", CART), ("workload/uid-2", VAULT)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_in_one_worker_need_no_keys() {
    let agent = Agent::start();
    let (cart, vault) = pods();
    let known = vec![
        workload(&cart, [10, 9, 0, 1], Isolation::Shared, false),
        workload(&vault, [10, 9, 0, 2], Isolation::Shared, false),
    ];
    remember(&agent, known).await;
    let node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&cart, &vault]).await;
    node.serves("shared", &["uid-1", "uid-2"]).await;
    // More at once than one batch of sockets holds.
    let calls: Vec<_> = (0..300).map(|_| call(&cart)).collect();
    for stream in calls {
        assert_eq!(answer(stream), "10.9.0.1");
    }
    let metrics = node.metrics().unwrap();
    for series in [
        "istio_tcp_connections_opened_total{",
        "trefoil_node_granted_total{what=\"sockets\",scope=\"shared\"}",
        "trefoil_node_workers 1",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
    // A pod that leaves and comes back is served at once, over the listeners it had, each time.
    for _ in 0..20 {
        assert_eq!(feed.del("uid-2").await, "");
        assert_eq!(feed.add(&vault).await, "");
        node.serves("shared", &["uid-1", "uid-2"]).await;
        assert_eq!(answer(call(&cart)), "10.9.0.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_keeps_what_is_established_and_refuses_nothing() {
    let agent = Agent::start();
    let (cart, vault) = pods();
    let known = vec![
        workload(&cart, [10, 9, 0, 1], Isolation::Shared, false),
        workload(&vault, [10, 9, 0, 2], Isolation::Shared, false),
    ];
    remember(&agent, known).await;
    let mut old = NodeProxy::start_as(&agent, "old", "60", &[]);
    let first = agent.feed().await;
    first.snapshot(&[&cart, &vault]).await;
    old.serves("shared", &["uid-1", "uid-2"]).await;
    let mut established = call(&cart);
    let mut address = [0; 8];
    established.read_exact(&mut address).unwrap();

    let new = NodeProxy::start_as(&agent, "new", "2", &[]);
    let second = agent.feed().await;
    second.snapshot(&[&cart, &vault]).await;
    new.serves("shared", &["uid-1", "uid-2"]).await;
    old.terminate();
    until("the old one drains", async || {
        (old.asks("/status").await?["draining"] == true).then_some(())
    })
    .await;
    for _ in 0..100 {
        assert_eq!(answer(call(&cart)), "10.9.0.1");
    }
    assert_eq!(converse(&mut established, "still here"), "still here");
    drop(established);
    // The last connection has ended: long before the deadline, so does the process.
    assert!(old.child.wait().await.unwrap().success());
    assert_eq!(answer(call(&cart)), "10.9.0.1");
    assert_eq!(
        agent.stored_keys().iter().filter(|key| key.contains('/')).count(),
        10
    );
}
