use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures::FutureExt;
use socket2::{Domain, Socket, Type};
use trefoil_api::proto::trefoil::worker::{Family as WireFamily, NeedSockets, Sockets, from_worker::Payload};
use trefoil_dataplane_core::sockets::{Dialer, Family};

use super::{PodDialer, Pools};
use crate::worker::channel::Outbox;

fn made(count: u32) -> Vec<OwnedFd> {
    let socket = |_| {
        Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)
            .unwrap()
            .into()
    };
    (0..count).map(socket).collect()
}

fn sockets(error: &str) -> Sockets {
    Sockets {
        pod_uid: "one".into(),
        family: WireFamily::Ipv4.into(),
        error: error.into(),
        generation: 1,
        datagrams: false,
    }
}

fn need(payload: Payload) -> NeedSockets {
    match payload {
        Payload::NeedSockets(need) => need,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_waits_is_served_when_a_batch_arrives_and_the_pool_is_refilled_early() {
    let (outbox, mut sent) = Outbox::taken();
    let pools = Arc::new(Pools::new(outbox));
    let dialer = PodDialer {
        uid: "one".into(),
        generation: 1,
        pools: Arc::clone(&pools),
    };
    let waiting = tokio::spawn({
        let dialer = dialer.clone();
        async move { dialer.socket(Family::V4).await.map(drop) }
    });
    let first = need(sent.recv().await.unwrap().0);
    assert_eq!((first.pod_uid.as_str(), first.count), ("one", 4));
    pools.arrived(&sockets(""), made(4));
    waiting.await.unwrap().unwrap();
    for _ in 0..3 {
        dialer.socket(Family::V4).await.unwrap();
    }
    assert_eq!(need(sent.recv().await.unwrap().0).count, 4);
    assert!(sent.try_recv().is_err());
}

#[tokio::test]
async fn the_supervisors_reason_reaches_who_waits() {
    let (outbox, mut sent) = Outbox::taken();
    let pools = Arc::new(Pools::new(outbox));
    let dialer = PodDialer {
        uid: "one".into(),
        generation: 1,
        pools: Arc::clone(&pools),
    };
    let waiting = tokio::spawn(async move { dialer.socket(Family::V4).await.map(drop) });
    sent.recv().await.unwrap();
    pools.arrived(&sockets("not a pod of this worker"), Vec::new());
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "not a pod of this worker");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let (outbox, _sent) = Outbox::taken();
    let dialer = PodDialer {
        uid: "one".into(),
        generation: 1,
        pools: Arc::new(Pools::new(outbox)),
    };
    let error = dialer.socket(Family::V4).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_batch_of_the_namespace_before_serves_nobody_after_the_pod_is_replaced() {
    let (outbox, mut sent) = Outbox::taken();
    let pools = Arc::new(Pools::new(outbox));
    let dialer = |generation| PodDialer {
        uid: "one".into(),
        generation,
        pools: Arc::clone(&pools),
    };
    let (before, after) = (dialer(1), dialer(2));
    let left = tokio::spawn(async move { before.socket(Family::V4).await.map(drop) });
    assert_eq!(need(sent.recv().await.unwrap().0).generation, 1);
    pools.renew("one", 2);
    left.await.unwrap().unwrap_err();

    let mut waiting = tokio::spawn(async move { after.socket(Family::V4).await.map(drop) });
    assert_eq!(need(sent.recv().await.unwrap().0).generation, 2);
    pools.arrived(&sockets(""), made(4));
    tokio::task::yield_now().await;
    assert!((&mut waiting).now_or_never().is_none());
    let right = Sockets {
        generation: 2,
        ..sockets("")
    };
    pools.arrived(&right, made(4));
    waiting.await.unwrap().unwrap();
}
