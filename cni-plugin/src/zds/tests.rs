use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use trefoil_api::proto::istio::workload::zds::{
    Ack, Version, WorkloadRequest, WorkloadResponse, ZdsHello, workload_request::Payload, workload_response,
};
use trefoil_api::proto::trefoil::descriptors::{Kind, Name};
use trefoil_packets::{PacketListener, PacketSocket, connect};

use super::{FedPod, Feed, FeedError};
use crate::descriptors::DescriptorStore;
use crate::namespace::Namespace;

const PATIENCE: Duration = Duration::from_secs(5);

fn pod(uid: &str) -> FedPod {
    FedPod {
        uid: uid.into(),
        namespace: "shop".into(),
        name: format!("name-of-{uid}"),
        service_account: "default".into(),
        network: Namespace::current().unwrap(),
    }
}

fn serve(folder: &Path) -> Arc<Feed> {
    let feed = Arc::new(Feed::default());
    let listener = PacketListener::bind(&folder.join("pods.sock")).unwrap();
    tokio::spawn(Arc::clone(&feed).serve(listener));
    feed
}

/// A node proxy, message by message.
struct Proxy(PacketSocket);

impl Proxy {
    async fn connect(folder: &Path) -> Self {
        let socket = connect(&folder.join("pods.sock")).await.unwrap();
        let hello = ZdsHello {
            version: Version::V1.into(),
        };
        socket.send(&hello, &[]).await.unwrap();
        Self(socket)
    }

    /// Receives a message, answers it, and says in words what it was.
    async fn next(&self, complaint: &str) -> String {
        let received = tokio::time::timeout(PATIENCE, self.0.receive::<WorkloadRequest>());
        let (request, descriptors) = received.await.unwrap().unwrap().unwrap();
        let ack = Ack {
            error: complaint.into(),
        };
        let payload = Some(workload_response::Payload::Ack(ack));
        self.0.send(&WorkloadResponse { payload }, &[]).await.unwrap();
        match request.payload.unwrap() {
            Payload::Add(add) => {
                assert_eq!(add.workload_info.unwrap().namespace, "shop");
                format!("add {} with {}", add.uid, descriptors.len())
            }
            Payload::Del(del) => format!("del {} with {}", del.uid, descriptors.len()),
            Payload::SnapshotSent(_) => format!("snapshot with {}", descriptors.len()),
            Payload::Keep(keep) => format!("keep {}", keep.uid),
        }
    }
}

#[tokio::test]
async fn a_snapshot_comes_first_and_only_once_the_feed_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let feed = serve(folder.path());
    let proxy = Proxy::connect(folder.path()).await;
    feed.add(pod("a"));
    feed.add(pod("b"));
    feed.open();
    assert_eq!(proxy.next("").await, "add a with 1");
    assert_eq!(proxy.next("").await, "add b with 1");
    assert_eq!(proxy.next("").await, "snapshot with 0");
    feed.taken("a", PATIENCE).await.unwrap();
    feed.add(pod("c"));
    assert_eq!(proxy.next("").await, "add c with 1");
    feed.taken("c", PATIENCE).await.unwrap();
    feed.add(pod("c"));
    feed.remove("a");
    assert_eq!(proxy.next("").await, "del a with 0", "c is not sent again");
}

#[tokio::test]
async fn a_refusal_is_reported_and_a_later_attempt_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let feed = serve(folder.path());
    feed.open();
    let proxy = Proxy::connect(folder.path()).await;
    assert_eq!(proxy.next("").await, "snapshot with 0");
    feed.add(pod("a"));
    proxy.next("no listener").await;
    let refused = feed.taken("a", PATIENCE).await.unwrap_err();
    assert!(matches!(refused, FeedError::Refused { ref reason, .. } if reason == "no listener"));
    feed.add(pod("a"));
    proxy.next("").await;
    feed.taken("a", PATIENCE).await.unwrap();
}

#[tokio::test]
async fn new_pods_go_to_the_newest_proxy_and_ends_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let feed = serve(folder.path());
    feed.open();
    feed.add(pod("a"));
    let old = Proxy::connect(folder.path()).await;
    assert_eq!(old.next("").await, "add a with 1");
    assert_eq!(old.next("").await, "snapshot with 0");
    let new = Proxy::connect(folder.path()).await;
    assert_eq!(new.next("").await, "add a with 1");
    assert_eq!(new.next("").await, "snapshot with 0");
    feed.add(pod("b"));
    assert_eq!(new.next("").await, "add b with 1");
    feed.taken("b", PATIENCE).await.unwrap();
    feed.remove("a");
    assert_eq!(new.next("").await, "del a with 0");
    assert_eq!(old.next("").await, "del a with 0");
    drop(new);
    assert_eq!(
        old.next("").await,
        "add b with 1",
        "the newest went: the one before takes over"
    );
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let feed = Feed::default();
    feed.add(pod("a"));
    let untaken = feed.taken("a", Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(untaken, FeedError::NotTaken(_)));
    assert!(feed.taken("b", PATIENCE).await.is_err());
}

#[tokio::test]
async fn what_a_proxy_serves_is_kept_until_somebody_says_that_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(DescriptorStore::default());
    let names = ["a", "b", "c", "d"].map(|uid| Name {
        kind: Kind::Namespace.into(),
        key: uid.into(),
    });
    let file = || tempfile::tempfile().unwrap().into();
    store
        .put(names.into(), vec![file(), file(), file(), file()])
        .unwrap();
    let feed = Arc::new(Feed::new(store));
    let listener = PacketListener::bind(&folder.path().join("pods.sock")).unwrap();
    tokio::spawn(Arc::clone(&feed).serve(listener));
    feed.add(pod("a"));
    feed.remove("b");
    feed.open();
    let proxy = Proxy::connect(folder.path()).await;
    assert_eq!(proxy.next("").await, "add a with 1");
    assert_eq!(proxy.next("").await, "keep c");
    assert_eq!(proxy.next("unknown here").await, "keep d");
    assert_eq!(proxy.next("").await, "snapshot with 0");
    feed.set_present(["a".into(), "d".into()].into());
    assert_eq!(proxy.next("").await, "del c with 0", "it is not listed");
    feed.remove("d");
    assert_eq!(proxy.next("").await, "del d with 0");

    let next = Proxy::connect(folder.path()).await;
    assert_eq!(next.next("").await, "add a with 1");
    assert_eq!(next.next("").await, "snapshot with 0");
}
