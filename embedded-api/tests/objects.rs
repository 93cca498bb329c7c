//! The embedded API as kube-rs sees it: objects, watches, refusals.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use support::Api as Running;

fn config_map(name: &str, labels: &Value) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "data": { "a": "1" } }))
        .unwrap()
}

fn code(error: kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the API: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mesh_has_its_namespaces_and_their_accounts() {
    let running = Running::start().await;
    let client = running.admin().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let names: Vec<String> = namespaces
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|one| one.metadata.name)
        .collect();
    assert_eq!(names, ["default", "kube-system", "trefoil-system"]);
    Api::<ServiceAccount>::namespaced(client, "kube-system")
        .get("default")
        .await
        .unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_replaced_patched_and_deleted() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(running.admin().await, "default");
    let created = maps
        .create(&PostParams::default(), &config_map("one", &json!({ "app": "a" })))
        .await
        .unwrap();
    assert!(created.metadata.uid.is_some());
    assert!(created.metadata.creation_timestamp.is_some());
    let again = maps
        .create(&PostParams::default(), &config_map("one", &json!({})))
        .await
        .unwrap_err();
    assert_eq!(code(again), 409);

    let patch = json!({ "data": { "b": "2" } });
    let patched = maps
        .patch("one", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(
        patched.data.as_ref().map(std::collections::BTreeMap::len),
        Some(2)
    );
    let stale = maps
        .replace("one", &PostParams::default(), &created)
        .await
        .unwrap_err();
    assert_eq!(code(stale), 409, "an update of an older version is refused");
    maps.replace("one", &PostParams::default(), &patched)
        .await
        .unwrap();

    assert_eq!(
        maps.list(&ListParams::default().labels("app in (a,b)"))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_eq!(
        maps.list(&ListParams::default().labels("app notin (a,b)"))
            .await
            .unwrap()
            .items
            .len(),
        0
    );
    assert_eq!(
        maps.list(&ListParams::default().fields("metadata.name=one"))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(maps.get("one").await.unwrap_err()), 404);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_written_by_its_subresource_alone() {
    let running = Running::start().await;
    let pods: Api<Pod> = Api::namespaced(running.admin().await, "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c" }] },
        "status": { "phase": "Running" },
    }))
    .unwrap();
    let created = pods.create(&PostParams::default(), &pod).await.unwrap();
    assert_eq!(created.status.unwrap().phase.as_deref(), Some("Pending"));
    let status = json!({ "status": { "phase": "Running", "podIP": "10.0.0.1" } });
    let main = pods
        .patch("p", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
    assert_eq!(main.status.unwrap().phase.as_deref(), Some("Pending"));
    let running_pod = pods
        .patch_status("p", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
    assert_eq!(running_pod.status.unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(
        pods.list(&ListParams::default().fields("spec.nodeName=n1"))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_eq!(
        pods.list(&ListParams::default().fields("spec.nodeName=n2"))
            .await
            .unwrap()
            .items
            .len(),
        0
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_enters_and_leaves_its_selection() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(running.admin().await, "default");
    let version = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let events = maps
        .watch(&WatchParams::default().labels("app=a"), &version)
        .await
        .unwrap();
    let mut events = std::pin::pin!(events);
    maps.create(&PostParams::default(), &config_map("one", &json!({})))
        .await
        .unwrap();
    for label in ["a", "b"] {
        let patch = json!({ "metadata": { "labels": { "app": label } } });
        maps.patch("one", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Added(_))
    ));
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Deleted(_))
    ));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watcher_of_kube_works_with_lists_and_with_streaming_lists() {
    let running = Running::start().await;
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let maps: Api<ConfigMap> = Api::namespaced(running.admin().await, "default");
        maps.create(&PostParams::default(), &config_map("before", &json!({})))
            .await
            .unwrap();
        let mut seen = watcher(maps.clone(), config).applied_objects().boxed();
        assert_eq!(
            seen.try_next().await.unwrap().unwrap().metadata.name.as_deref(),
            Some("before")
        );
        maps.create(&PostParams::default(), &config_map("after", &json!({})))
            .await
            .unwrap();
        assert_eq!(
            seen.try_next().await.unwrap().unwrap().metadata.name.as_deref(),
            Some("after")
        );
        maps.delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .unwrap();
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_version_is_gone() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(running.admin().await, "default");
    let events = maps.watch(&WatchParams::default(), "999999").await.unwrap();
    let mut events = std::pin::pin!(events);
    match events.try_next().await.unwrap() {
        Some(WatchEvent::Error(status)) => assert_eq!(status.code, 410),
        other => panic!("expected 410, got {other:?}"),
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_either_form_is_read_in_both() {
    use k8s_openapi::api::core::v1::Event;
    use kube::runtime::events::{Event as News, EventType, Recorder};

    let running = Running::start().await;
    let client = running.admin().await;
    let recorder = Recorder::new(client.clone(), "tests".into());
    let about = k8s_openapi::api::core::v1::ObjectReference {
        kind: Some("Pod".into()),
        name: Some("p".into()),
        namespace: Some("default".into()),
        ..Default::default()
    };
    let news = News {
        type_: EventType::Normal,
        reason: "Enrolled".into(),
        note: Some("said".into()),
        action: "Enrol".into(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder.publish(&news, &about).await.unwrap();
    }
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let about_pod = ListParams::default().fields("involvedObject.name=p");
    let found = events.list(&about_pod).await.unwrap().items;
    assert_eq!((found.len(), found[0].message.as_deref()), (1, Some("said")));
    let newer: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client, "default");
    assert_eq!(
        newer.list(&ListParams::default()).await.unwrap().items[0]
            .note
            .as_deref(),
        Some("said")
    );
    running.stop().await;
}
