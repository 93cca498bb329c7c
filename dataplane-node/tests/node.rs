//! The node proxy as processes, over real network namespaces, with an agent made here. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use support::known::{remember, workload};
use support::{Agent, NodeProxy, Pod, descriptors_of, kill, status_of, until, was_taken};
use trefoil_api::names::port::{HBONE, INBOUND, OUTBOUND};
use trefoil_api::proto::istio::workload::zds::workload_request::Payload;
use trefoil_api::proto::istio::workload::zds::{AddWorkload, DelWorkload, KeepWorkload, SnapshotSent};
use trefoil_api::proto::trefoil::v1::Isolation;

const LISTENERS: [u16; 3] = [OUTBOUND, INBOUND, HBONE];

/// The control plane once described these pods, and left their isolation to the node.
async fn described(agent: &Agent, pods: &[&Pod]) {
    let workloads = pods
        .iter()
        .zip(1..)
        .map(|(pod, last)| workload(pod, [10, 9, 0, last], Isolation::Unspecified, false));
    remember(agent, workloads.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_nothing_to_steal() {
    let agent = Agent::start();
    let pod = Pod::new("uid-1", "shop", "cart");
    described(&agent, &[&pod]).await;
    let node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&pod]).await;
    let (process, user) = node.serves("shared", &["uid-1"]).await;

    assert!(user >= 15100);
    for key in ["Uid", "Gid"] {
        assert_eq!(status_of(process, key), format!("{user} {user} {user} {user}"));
    }
    assert_eq!(status_of(process, "Groups"), "");
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_of(process, key), "0000000000000000", "{key}");
    }
    assert_eq!(status_of(process, "NoNewPrivs"), "1");
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap();
    assert!(
        environment.is_empty(),
        "{}",
        String::from_utf8_lossy(&environment)
    );
    let folder = std::fs::read_link(format!("/proc/{process}/cwd")).unwrap();
    assert_eq!(folder.to_str(), Some("/"));
    // Not dumpable: its files in /proc are root's, not its own, so another of its user cannot open them.
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(format!("/proc/{process}/environ"))
        .unwrap()
        .uid();
    assert_eq!(owner, 0);
    for link in descriptors_of(process) {
        let kind = link.split(':').next().unwrap_or_default();
        let harmless = matches!(kind, "socket" | "pipe" | "anon_inode" | "/dev/null");
        let errors = std::fs::read_link(format!("/proc/{process}/fd/2")).unwrap();
        assert!(
            harmless || errors.to_str() == Some(&link),
            "a worker holds {link}"
        );
        assert!(!link.contains("net:["), "a worker holds a namespace: {link}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_acknowledged_once_its_listeners_are_open_and_stored() {
    let agent = Agent::start();
    let _node = NodeProxy::start(&agent, &[]);
    let pod = Pod::new("uid-1", "shop", "cart");
    let feed = agent.feed().await;
    assert_eq!(feed.add(&pod).await, "");
    // At this moment no worker exists: the control plane has not described the pod.
    for port in LISTENERS {
        pod.connect(port).unwrap();
    }
    let expected = [
        "uid-1/15001",
        "uid-1/15006",
        "uid-1/15008",
        "uid-1/15053",
        "uid-1/udp/15053",
        "uid-1",
    ];
    assert_eq!(agent.stored_keys(), expected);
    assert_eq!(feed.add(&pod).await, "", "the same pod again");
    assert_eq!(feed.del("uid-1").await, "");
    until("nothing of the pod is stored", async || {
        agent.stored_keys().is_empty().then_some(())
    })
    .await;
    until("its listeners are closed", async || {
        listening(&pod).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_made_while_a_worker_is_dead_are_accepted_by_the_next_and_others_do_not_notice() {
    let agent = Agent::start();
    let (shop, bank) = (
        Pod::new("uid-1", "shop", "cart"),
        Pod::new("uid-2", "bank", "vault"),
    );
    described(&agent, &[&shop, &bank]).await;
    let node = NodeProxy::start(&agent, &["--isolation", "namespace"]);
    let feed = agent.feed().await;
    feed.snapshot(&[&shop, &bank]).await;
    let (first, user) = node.serves("namespace/shop", &["uid-1"]).await;
    let (other, other_user) = node.serves("namespace/bank", &["uid-2"]).await;
    assert_ne!(user, other_user);

    kill(first);
    let mut meanwhile: Vec<_> = LISTENERS
        .iter()
        .map(|port| shop.connect(*port).unwrap())
        .collect();
    until("another process", async || {
        let (process, _) = node.serves("namespace/shop", &["uid-1"]).await;
        (process != first).then_some(())
    })
    .await;
    // Outbound and plaintext are ended by whoever takes them; HBONE waits for a handshake.
    assert!(was_taken(&mut meanwhile[0]));
    assert!(was_taken(&mut meanwhile[1]));
    assert_eq!(
        node.serves("namespace/bank", &["uid-2"]).await,
        (other, other_user)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_made_while_all_of_it_is_dead_are_accepted_by_the_next() {
    let agent = Agent::start();
    let pod = Pod::new("uid-1", "shop", "cart");
    described(&agent, &[&pod]).await;
    let mut node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&pod]).await;
    let (worker, _) = node.serves("shared", &["uid-1"]).await;
    let supervisor = node.child.id().unwrap();
    kill(supervisor);
    node.child.wait().await.unwrap();
    drop(feed);
    until("the worker ends with its supervisor", async || {
        (!std::path::Path::new(&format!("/proc/{worker}")).exists()).then_some(())
    })
    .await;

    let mut meanwhile = pod.connect(INBOUND).unwrap();
    let listeners = listening(&pod);
    let successor = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&pod]).await;
    successor.serves("shared", &["uid-1"]).await;
    assert!(was_taken(&mut meanwhile));
    // The very same sockets: a second one would take connections that nobody hears of.
    assert_eq!(listening(&pod), listeners);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_gets_every_descriptor_back_and_pods_it_does_not_name_are_dropped() {
    let mut agent = Agent::start();
    let (one, two) = (
        Pod::new("uid-1", "shop", "cart"),
        Pod::new("uid-2", "shop", "web"),
    );
    described(&agent, &[&one, &two]).await;
    let node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&one, &two]).await;
    let (worker, _) = node.serves("shared", &["uid-1", "uid-2"]).await;
    let before = listening(&one);

    agent.end();
    drop(feed);
    agent.listen();
    let feed = agent.feed().await;
    assert_eq!(
        agent.stored_keys().iter().filter(|key| key.contains('/')).count(),
        10
    );
    feed.snapshot(&[&one]).await;
    assert_eq!(node.serves("shared", &["uid-1"]).await.0, worker);
    assert_eq!(listening(&one), before);
    until("the other pod's listeners are closed", async || {
        listening(&two).is_empty().then_some(())
    })
    .await;
    assert!(agent.stored_keys().iter().all(|key| !key.contains("uid-2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_proxy_that_is_told_to_end_leaves_its_listeners_to_the_next() {
    let agent = Agent::start();
    let pod = Pod::new("uid-1", "shop", "cart");
    described(&agent, &[&pod]).await;
    let mut node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&pod]).await;
    node.serves("shared", &["uid-1"]).await;
    node.terminate();
    let status = node.child.wait().await.unwrap();
    assert!(status.success(), "{status}");

    assert_eq!(
        agent.stored_keys().iter().filter(|key| key.contains('/')).count(),
        5
    );
    let mut meanwhile = pod.connect(OUTBOUND).unwrap();
    let successor = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&pod]).await;
    successor.serves("shared", &["uid-1"]).await;
    assert!(was_taken(&mut meanwhile));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_proxy_that_meets_a_new_agent_first_gets_the_listeners_of_the_one_before() {
    let mut agent = Agent::start();
    let pod = Pod::new("uid-1", "shop", "cart");
    described(&agent, &[&pod]).await;
    let mut before = NodeProxy::start_as(&agent, "before", "2", &[]);
    let feed = agent.feed().await;
    feed.snapshot(&[&pod]).await;
    before.serves("shared", &["uid-1"]).await;
    let listeners = listening(&pod);

    // Agent and node proxy are replaced at once, and the old proxy is slow to notice.
    before.suspend(true);
    agent.end();
    drop(feed);
    agent.listen();
    let after = NodeProxy::start_as(&agent, "after", "2", &[]);
    let feed = agent.feed().await;
    assert!(agent.stored_keys().is_empty());
    let noticing = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        before.suspend(false);
    };
    let pods = [&pod];
    tokio::join!(feed.snapshot(&pods), noticing);
    after.serves("shared", &["uid-1"]).await;
    assert_eq!(listening(&pod), listeners);

    before.terminate();
    before.child.wait().await.unwrap();
    let mut meanwhile = pod.connect(OUTBOUND).unwrap();
    assert!(was_taken(&mut meanwhile));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_feeds_protocol_is_answered_and_the_connection_left() {
    let agent = Agent::start();
    let _node = NodeProxy::start(&agent, &[]);
    let pod = Pod::new("uid-1", "shop", "cart");
    let uid = || "uid-1".to_owned();
    let bare = Payload::Add(AddWorkload {
        uid: uid(),
        workload_info: None,
    });
    let del = Payload::Del(DelWorkload { uid: uid() });
    let again = Payload::SnapshotSent(SnapshotSent {});
    let late = Payload::Keep(KeepWorkload { uid: uid() });
    for (payload, with) in [(bare, Some(&pod)), (del, Some(&pod)), (again, None), (late, None)] {
        let feed = agent.feed().await;
        feed.snapshot(&[]).await;
        assert_ne!(feed.says(payload, with).await, "");
        assert!(feed.ended().await);
    }
    // Unknown, but no breach: the agent is told, and the feed goes on.
    let feed = agent.feed().await;
    assert_ne!(
        feed.says(Payload::Keep(KeepWorkload { uid: uid() }), None).await,
        ""
    );
    feed.snapshot(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_awaits_and_how_it_is() {
    let agent = Agent::start();
    let node = NodeProxy::start(&agent, &[]);
    let answer = until("an answer", async || node.readiness()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("control plane: policies and workloads"),
        "{answer}"
    );
    assert!(answer.contains("pods: the agent's snapshot"), "{answer}");
    let feed = agent.feed().await;
    feed.snapshot(&[]).await;
    until("the snapshot is not awaited", async || {
        let answer = node.readiness()?;
        (!answer.contains("snapshot")).then_some(())
    })
    .await;
    drop(feed);
    until("the feed is awaited", async || {
        node.readiness()?.contains("pods: the agent's feed").then_some(())
    })
    .await;
    assert!(node.admin(&["config"]).await.contains("\"plane\":\"node\""));
    node.admin(&["log-level", "debug"]).await;
    assert!(node.admin(&["log-level"]).await.contains("debug"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_nobody_described_never_shares() {
    let agent = Agent::start();
    let (known, neighbour) = (
        Pod::new("uid-1", "shop", "cart"),
        Pod::new("uid-2", "shop", "web"),
    );
    let isolated = workload(&known, [10, 9, 0, 1], Isolation::Namespace, false);
    let free = workload(
        &Pod::new("uid-4", "park", "bench"),
        [10, 9, 0, 4],
        Isolation::Shared,
        false,
    );
    remember(&agent, vec![isolated, free]).await;
    let node = NodeProxy::start(&agent, &[]);
    let feed = agent.feed().await;
    let stranger = Pod::new("uid-3", "bank", "vault");
    feed.snapshot(&[&neighbour, &stranger]).await;
    // As the rest of its namespace, at once; where nothing is known of that, alone.
    node.serves("namespace/shop", &["uid-2"]).await;
    node.serves("workload/uid-3", &["uid-3"]).await;
    // A pod that takes another's place is looked at anew, and its former worker lets go of it.
    assert_eq!(feed.add(&Pod::new("uid-3", "park", "swing")).await, "");
    node.serves("shared", &["uid-3"]).await;
    until("the worker of its own is gone", async || {
        let status = node.asks("/status").await?;
        let workers = status["workers"].as_array()?.iter();
        let scopes: Vec<_> = workers.map(|worker| worker["scope"].clone()).collect();
        (!scopes.contains(&"workload/uid-3".into())).then_some(())
    })
    .await;
}

/// Inodes of the listeners in a pod, by port.
fn listening(pod: &Pod) -> BTreeMap<u16, u64> {
    let table = pod.within(|| std::fs::read_to_string("/proc/thread-self/net/tcp6").unwrap());
    let mut listeners = BTreeMap::new();
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields[3] == "0A" {
            let port = fields[1].rsplit(':').next().unwrap();
            let port = u16::from_str_radix(port, 16).unwrap();
            let inode = fields[9].parse().unwrap();
            assert!(listeners.insert(port, inode).is_none(), "two listeners on {port}");
        }
    }
    listeners
}
