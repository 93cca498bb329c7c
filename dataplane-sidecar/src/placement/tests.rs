use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use prost_types::Any;
use trefoil_api::names::{extension, workload_uid};
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::workload::{Address, Extension, Workload, address};
use trefoil_api::proto::trefoil::v1::Placement;
use trefoil_api::proto::type_url;

use super::*;

fn any<M: Message>(type_url: &str, message: &M) -> Any {
    Any {
        type_url: type_url.into(),
        value: message.encode_to_vec(),
    }
}

fn place(store: &Store, plane: Plane) {
    let placement = Placement {
        plane: plane.into(),
        ..Placement::default()
    };
    let workload = Workload {
        uid: workload_uid("shop", "web"),
        namespace: "shop".into(),
        extensions: vec![Extension {
            name: extension::PLACEMENT.into(),
            config: Some(any(type_url::PLACEMENT, &placement)),
        }],
        ..Workload::default()
    };
    let address = Address {
        r#type: Some(address::Type::Workload(workload)),
    };
    let refusals = store.apply(&DeltaDiscoveryResponse {
        type_url: type_url::ADDRESS.into(),
        resources: vec![Resource {
            name: workload_uid("shop", "web"),
            resource: Some(any(type_url::ADDRESS, &address)),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    });
    assert_eq!(refusals, []);
}

#[tokio::test]
async fn clients_are_asked_to_leave_once_for_each_move_away() {
    let store = Store::new();
    let retired = Arc::new(AtomicUsize::new(0));
    let counted = retired.clone();
    let (moved, mut moves) = tokio::sync::watch::channel(0);
    tokio::spawn(watch(store.clone(), workload_uid("shop", "web"), move || {
        moved.send_replace(counted.fetch_add(1, Ordering::SeqCst) + 1);
    }));
    for (plane, expected) in [
        (Plane::Unspecified, 0),
        (Plane::Sidecar, 0),
        (Plane::Node, 1),
        (Plane::Node, 1),
        (Plane::Sidecar, 1),
        (Plane::None, 2),
    ] {
        place(&store, plane);
        moves.wait_for(|count| *count >= expected).await.expect("watched");
        // Whatever else the watcher has to do with this change, it does before it waits again.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(retired.load(Ordering::SeqCst), expected, "{plane:?}");
    }
}
