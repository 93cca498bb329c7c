//! Every replica of the control plane is told what redirects a pod, and asked about each withdrawal.
#![allow(clippy::unwrap_used)]

#[path = "node/control_plane.rs"]
#[allow(clippy::unwrap_used, dead_code, unreachable_pub)]
mod control_plane;

use std::sync::Arc;
use std::time::Duration;

use control_plane::ControlPlane;
use trefoil_api::proto::trefoil::v1::Plane;
use trefoil_cni::report::{self, Reports, Withdrawal, placement};

const PATIENCE: Duration = Duration::from_secs(10);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

#[tokio::test]
async fn every_replica_is_told_and_asked() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = ControlPlane::start(folders[0].path()).await;
    let second = ControlPlane::start(folders[1].path()).await;
    let root = folders[0].path().join("roots.pem");
    let roots = folders
        .iter()
        .map(|folder| std::fs::read_to_string(folder.path().join("root-cert.pem")).unwrap());
    std::fs::write(&root, roots.collect::<String>()).unwrap();

    let reports = Arc::new(Reports::default());
    let pod = placement("a", "shop", "cart", Plane::Node);
    reports.place(pod.clone());
    let running = tokio::spawn(reports.clone().run(report::ControlPlane {
        addresses: vec![first.address.clone(), second.address.clone()],
        name: control_plane::NAME.into(),
        token: folders[0].path().join("token"),
        root,
    }));
    until("both know the pod", || {
        [&first, &second].map(|replica| replica.plane("a")) == [Some(Plane::Node); 2]
    })
    .await;
    until("both answered", || reports.replicas().len() == 2).await;

    first.acknowledge(&[]);
    second.acknowledge(&["node-2"]);
    let outcome = reports.withdraw(pod, PATIENCE).await;
    assert_eq!(outcome, Withdrawal::Unanswered(vec!["node-2".into()]));
    assert_eq!([first.withdrawn(), second.withdrawn()], [["a"], ["a"]]);
    running.abort();
}
