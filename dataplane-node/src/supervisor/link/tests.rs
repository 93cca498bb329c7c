use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use socket2::Socket;
use trefoil_api::Identity;
use trefoil_api::proto::trefoil::worker::{
    Family, FromWorker, NeedSockets, Sign, StoreKeys, ToWorker, from_worker, to_worker,
};
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_state::certificates::{SignError, Signer};
use trefoil_packets::PacketSocket;

use super::{Grants, LARGEST_BATCH, LinkError, serve};
use crate::sealed;
use crate::supervisor::counters::Counters;
use crate::supervisor::keeper::Keeper;
use crate::supervisor::namespace::Entrance;
use crate::supervisor::resources::Resources;
use crate::supervisor::scope::Scope;
use crate::supervisor::worker::{Worker, tests::assignment};

/// Signs by saying for whom, and remembers.
#[derive(Default)]
struct Witness {
    asked: Mutex<Vec<String>>,
}

impl Signer for Witness {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        self.asked.lock().unwrap().push(identity.to_string());
        Box::pin(async move { Ok(vec![csr]) })
    }
}

/// A worker's end of a channel, in the hands of somebody who took the worker over.
struct TakenOver {
    socket: PacketSocket,
    witness: Arc<Witness>,
    worker: Arc<Worker>,
    ended: tokio::task::JoinHandle<LinkError>,
}

impl TakenOver {
    fn start() -> Self {
        let (ours, theirs) = trefoil_packets::pair().unwrap();
        let worker = Arc::new(Worker::new(Scope::Namespace("shop".into()), 15100));
        worker.assign(assignment("mine"));
        let witness = Arc::new(Witness::default());
        let grants = Grants {
            entrance: Entrance::start().unwrap(),
            keeper: Arc::new(Keeper::new("/nonexistent/descriptors.sock".into())),
            resources: Arc::new(Resources::default()),
            signer: Arc::clone(&witness) as Arc<dyn Signer>,
            counters: Counters::default(),
            drain: Drain::new(),
            drain_milliseconds: 1000,
        };
        let socket = PacketSocket::new(ours).unwrap();
        let served = Arc::clone(&worker);
        let ended = tokio::spawn(async move { serve(&served, &grants, &socket).await });
        Self {
            socket: PacketSocket::new(theirs).unwrap(),
            witness,
            worker,
            ended,
        }
    }

    async fn says(&self, payload: from_worker::Payload) {
        let payload = Some(payload);
        self.socket.send(&FromWorker { payload }, &[]).await.unwrap();
    }

    async fn hears(&self) -> (to_worker::Payload, Vec<OwnedFd>) {
        let (message, descriptors) = self.socket.receive::<ToWorker>().await.unwrap().unwrap();
        (message.payload.unwrap(), descriptors)
    }

    async fn asks_for_sockets(&self, uid: &str, count: u32) -> (String, Vec<OwnedFd>) {
        let assignment = self.worker.assignment(uid);
        let generation = assignment.map_or(0, |assignment| assignment.pod.generation);
        self.asks_for_sockets_of(uid, generation, count).await
    }

    async fn asks_for_sockets_of(&self, uid: &str, generation: u64, count: u32) -> (String, Vec<OwnedFd>) {
        let need = NeedSockets {
            pod_uid: uid.into(),
            family: Family::Ipv4.into(),
            count,
            generation,
            datagrams: false,
        };
        self.says(from_worker::Payload::NeedSockets(need)).await;
        loop {
            if let (to_worker::Payload::Sockets(sockets), descriptors) = self.hears().await {
                return (sockets.error, descriptors);
            }
        }
    }

    async fn asks_to_sign(&self, uid: &str) -> String {
        let sign = Sign {
            request: 7,
            pod_uid: uid.into(),
            csr: "for somebody else".into(),
        };
        self.says(from_worker::Payload::Sign(sign)).await;
        loop {
            if let (to_worker::Payload::Signed(signed), _) = self.hears().await {
                assert_eq!(signed.request, 7);
                return signed.error;
            }
        }
    }
}

#[tokio::test]
async fn sockets_are_made_only_for_pods_of_the_worker_marked_and_no_more_than_a_batch() {
    let worker = TakenOver::start();
    let (error, sockets) = worker.asks_for_sockets("foreign", 1).await;
    assert_eq!((error.as_str(), sockets.len()), ("not a pod of this worker", 0));
    let (error, sockets) = worker.asks_for_sockets("mine", 100_000).await;
    assert_eq!((error.as_str(), sockets.len()), ("", LARGEST_BATCH as usize));
    let socket = Socket::from(sockets.into_iter().next().unwrap());
    assert_eq!(socket.mark().unwrap(), 0x539);
    assert!(socket.ip_transparent_v4().unwrap());
    assert!(socket.freebind_v4().unwrap());
}

#[tokio::test]
async fn certificates_are_signed_only_for_the_identities_of_the_workers_pods() {
    let worker = TakenOver::start();
    assert_eq!(worker.asks_to_sign("foreign").await, "not a pod of this worker");
    assert!(worker.witness.asked.lock().unwrap().is_empty());
    assert_eq!(worker.asks_to_sign("mine").await, "");
    let asked = worker.witness.asked.lock().unwrap().clone();
    assert_eq!(asked, ["spiffe://cluster.local/ns/shop/sa/cart"]);
}

#[tokio::test]
async fn a_pod_that_was_moved_away_is_foreign_once_it_is_drained() {
    let worker = TakenOver::start();
    assert_eq!(worker.asks_to_sign("mine").await, "");
    worker.worker.unassign("mine");
    loop {
        if let (to_worker::Payload::RemovePod(_), _) = worker.hears().await {
            break;
        }
    }
    let drained = trefoil_api::proto::trefoil::worker::PodDrained { uid: "mine".into() };
    worker.says(from_worker::Payload::PodDrained(drained)).await;
    assert_eq!(worker.asks_to_sign("mine").await, "not a pod of this worker");
}

#[tokio::test]
async fn keys_that_could_still_change_end_the_worker() {
    let worker = TakenOver::start();
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let payload = Some(from_worker::Payload::StoreKeys(StoreKeys {}));
    let message = FromWorker { payload };
    use std::os::fd::AsFd;
    worker.socket.send(&message, &[file.as_fd()]).await.unwrap();
    assert!(matches!(worker.ended.await.unwrap(), LinkError::Protocol(_)));
}

#[tokio::test]
async fn sealed_keys_are_kept_for_the_next_process() {
    let worker = TakenOver::start();
    let file = sealed::seal(b"keys").unwrap();
    let payload = Some(from_worker::Payload::StoreKeys(StoreKeys {}));
    use std::os::fd::AsFd;
    worker
        .socket
        .send(&FromWorker { payload }, &[file.as_fd()])
        .await
        .unwrap();
    // Answered after the keys were taken: messages are taken in order.
    worker.asks_for_sockets("mine", 1).await;
    let kept = worker.worker.keys().unwrap();
    assert_eq!(sealed::open(&*kept).unwrap(), b"keys");
}

#[tokio::test]
async fn descriptors_where_none_belong_end_the_worker() {
    let worker = TakenOver::start();
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let payload = Some(from_worker::Payload::Ready(Default::default()));
    use std::os::fd::AsFd;
    worker
        .socket
        .send(&FromWorker { payload }, &[file.as_fd()])
        .await
        .unwrap();
    assert!(matches!(worker.ended.await.unwrap(), LinkError::Protocol(_)));
}

#[tokio::test]
async fn sockets_of_a_network_that_was_replaced_are_not_made_in_the_next() {
    let worker = TakenOver::start();
    let before = worker.worker.assignment("mine").unwrap().pod.generation;
    worker.worker.assign(assignment("mine"));
    let (error, sockets) = worker.asks_for_sockets_of("mine", before, 4).await;
    assert_eq!((error.as_str(), sockets.len()), (super::REPLACED, 0));
    let (error, sockets) = worker.asks_for_sockets("mine", 4).await;
    assert_eq!((error.as_str(), sockets.len()), ("", 4));
}
