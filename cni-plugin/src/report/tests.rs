use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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

#[tokio::test]
async fn a_withdrawal_waits_for_its_acknowledgement_and_no_longer() {
    let reports = Arc::new(Reports::default());
    let pod = placement("a", "shop", "a", Plane::Node);
    let waiting = {
        let (reports, pod) = (Arc::clone(&reports), pod.clone());
        tokio::spawn(async move { reports.withdraw(pod, Duration::from_secs(5)).await })
    };
    let mut changes = reports.changes.subscribe();
    changes.wait_for(|changes| *changes > 0).await.unwrap();
    assert!(reports.placements()["a"].withdrawing);
    reports.acknowledge("a", vec!["node-2".into()]);
    assert_eq!(
        waiting.await.unwrap(),
        Withdrawal::Unanswered(vec!["node-2".into()])
    );
    assert_eq!(
        reports.withdraw(pod, Duration::from_millis(1)).await,
        Withdrawal::ControlPlaneAway
    );
}
