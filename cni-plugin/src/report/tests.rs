use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use trefoil_api::proto::trefoil::v1::{Plane, PodPlacement};

use super::{Reports, Told, Withdrawal, placement};

fn pods(list: &[(&str, Plane)]) -> BTreeMap<String, PodPlacement> {
    list.iter()
        .map(|(uid, plane)| ((*uid).to_string(), placement(uid, "shop", uid, *plane)))
        .collect()
}

#[test]
fn first_everything_then_what_changed() {
    let mut told = Told::default();
    let first = told
        .next(pods(&[("a", Plane::Node), ("b", Plane::None)]))
        .unwrap();
    assert!(first.snapshot && first.pods.len() == 2 && first.removed.is_empty());
    assert!(
        told.next(pods(&[("a", Plane::Node), ("b", Plane::None)]))
            .is_none()
    );
    let next = told
        .next(pods(&[("a", Plane::Sidecar), ("c", Plane::Node)]))
        .unwrap();
    assert!(!next.snapshot);
    let uids: Vec<&str> = next.pods.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(uids, ["a", "c"]);
    assert_eq!(next.removed, ["b"]);
    let empty = Told::default().next(BTreeMap::new()).unwrap();
    assert!(empty.snapshot, "an empty snapshot is said, too");
}

fn replica(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 15012))
}

/// A withdrawal that has begun, and what becomes of it.
async fn withdrawing(reports: &Arc<Reports>, patience: Duration) -> JoinHandle<Withdrawal> {
    let mut changes = reports.changes.subscribe();
    let waiting = {
        let (reports, pod) = (Arc::clone(reports), placement("a", "shop", "a", Plane::Node));
        tokio::spawn(async move { reports.withdraw(pod, patience).await })
    };
    changes.changed().await.unwrap();
    waiting
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_waits_for_its_acknowledgement_and_no_longer() {
    let reports = Arc::new(Reports::default());
    let waiting = withdrawing(&reports, Duration::from_secs(5)).await;
    assert!(reports.placements()["a"].withdrawing);
    reports.acknowledge("a", replica(1), vec!["node-2".into()]);
    assert_eq!(
        waiting.await.unwrap(),
        Withdrawal::Unanswered(vec!["node-2".into()])
    );
    let pod = placement("a", "shop", "a", Plane::Node);
    assert_eq!(
        reports.withdraw(pod, Duration::from_millis(1)).await,
        Withdrawal::ControlPlaneAway
    );
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_waits_for_every_replica_that_is_connected() {
    let reports = Arc::new(Reports::default());
    reports.turn(replica(1), true);
    reports.turn(replica(2), true);
    reports.turn(replica(3), true);
    reports.turn(replica(3), false);
    let waiting = withdrawing(&reports, Duration::from_secs(5)).await;
    reports.acknowledge("a", replica(1), Vec::new());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "the second has not answered");
    reports.acknowledge("a", replica(2), Vec::new());
    assert_eq!(waiting.await.unwrap(), Withdrawal::Acknowledged);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_known_and_not_reached_is_named() {
    let reports = Arc::new(Reports::default());
    reports.know([replica(1), replica(2)].into());
    reports.turn(replica(1), true);
    let waiting = withdrawing(&reports, Duration::from_secs(5)).await;
    reports.acknowledge("a", replica(1), Vec::new());
    let outcome = waiting.await.unwrap();
    assert!(
        matches!(&outcome, Withdrawal::Unanswered(names) if names.len() == 1 && names[0].contains("10.0.0.2")),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_answer_is_named() {
    let reports = Arc::new(Reports::default());
    reports.turn(replica(1), true);
    reports.turn(replica(2), true);
    let waiting = withdrawing(&reports, Duration::from_secs(5)).await;
    reports.acknowledge("a", replica(1), vec!["node-2".into()]);
    assert_eq!(
        waiting.await.unwrap(),
        Withdrawal::Unanswered(vec![
            "node-2".into(),
            "the control plane at 10.0.0.2:15012".into()
        ])
    );
}
