//! How objects end in the embedded API: finalizers, owners, namespaces.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};
use support::Api as Running;

fn object<K: serde::de::DeserializeOwned>(metadata: Value) -> K {
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

fn code(result: kube::Result<impl std::fmt::Debug>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizer_holds_an_object_until_it_is_taken_off() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(running.admin().await, "default");
    maps.create(
        &PostParams::default(),
        &object(json!({ "name": "a", "finalizers": ["x.dev/y"] })),
    )
    .await
    .unwrap();
    let marked = maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(marked.left().unwrap().metadata.deletion_timestamp.is_some());
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("a", &PatchParams::default(), &release).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_object_owned_goes_with_it() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(running.admin().await, "default");
    let owner =
        |name: &str, uid: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid });
    let mut uids = Vec::new();
    for name in ["one", "two"] {
        let made = maps
            .create(&PostParams::default(), &object(json!({ "name": name })))
            .await
            .unwrap();
        uids.push(made.metadata.uid.unwrap());
    }
    for (name, owners) in [
        ("own", json!([owner("one", &uids[0])])),
        ("shared", json!([owner("one", &uids[0]), owner("two", &uids[1])])),
    ] {
        maps.create(
            &PostParams::default(),
            &object(json!({ "name": name, "ownerReferences": owners })),
        )
        .await
        .unwrap();
    }
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("own").await.unwrap().is_none());
    assert_eq!(
        maps.get("shared")
            .await
            .unwrap()
            .metadata
            .owner_references
            .unwrap()
            .len(),
        1
    );
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..Default::default()
    };
    maps.delete("two", &orphan).await.unwrap();
    maps.get("shared").await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_once_all_in_it_has_gone() {
    let running = Running::start().await;
    let client = running.admin().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    assert_eq!(
        code(
            maps.create(&PostParams::default(), &object(json!({ "name": "a" })))
                .await
        ),
        404
    );
    namespaces
        .create(&PostParams::default(), &object(json!({ "name": "shop" })))
        .await
        .unwrap();
    maps.create(
        &PostParams::default(),
        &object(json!({ "name": "held", "finalizers": ["x.dev/y"] })),
    )
    .await
    .unwrap();
    maps.create(&PostParams::default(), &object(json!({ "name": "free" })))
        .await
        .unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    assert_eq!(
        namespaces
            .get("shop")
            .await
            .unwrap()
            .status
            .unwrap()
            .phase
            .as_deref(),
        Some("Terminating")
    );
    assert!(maps.get_opt("free").await.unwrap().is_none());
    assert_eq!(
        code(
            maps.create(&PostParams::default(), &object(json!({ "name": "b" })))
                .await
        ),
        403
    );

    let uid = namespaces.get("shop").await.unwrap().metadata.uid.unwrap();
    let release = Patch::Json::<()>(
        serde_json::from_value(json!([{ "op": "remove", "path": "/metadata/finalizers" }])).unwrap(),
    );
    maps.patch("held", &PatchParams::default(), &release)
        .await
        .unwrap();
    await_condition(namespaces.clone(), "shop", conditions::is_deleted(&uid))
        .await
        .unwrap();
    assert_eq!(
        code(namespaces.delete("default", &DeleteParams::default()).await),
        403
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_deleted_by_its_selector() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(running.admin().await, "default");
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        maps.create(
            &PostParams::default(),
            &object(json!({ "name": name, "labels": { "app": app } })),
        )
        .await
        .unwrap();
    }
    let dry = DeleteParams {
        dry_run: true,
        ..Default::default()
    };
    maps.delete("c", &dry).await.unwrap();
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=x"))
        .await
        .unwrap();
    let left: Vec<String> = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|one| one.metadata.name)
        .collect();
    assert_eq!(left, ["c"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_objects_are_created_and_then_merged() {
    let running = Running::start().await;
    let pods: Api<Pod> = Api::namespaced(running.admin().await, "default");
    let apply = PatchParams::apply("test").force();
    let wanted = |image: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c", "image": image }] },
        }))
    };
    pods.patch("p", &apply, &wanted("one")).await.unwrap();
    let applied = pods.patch("p", &apply, &wanted("two")).await.unwrap();
    assert_eq!(applied.spec.unwrap().containers[0].image.as_deref(), Some("two"));
    let conditions = |status: &str| {
        Patch::Apply(
            json!({ "apiVersion": "v1", "kind": "Pod", "status": { "conditions": [{ "type": "Ready", "status": status }] } }),
        )
    };
    pods.patch_status("p", &apply, &conditions("False"))
        .await
        .unwrap();
    let ready = pods
        .patch_status("p", &apply, &conditions("True"))
        .await
        .unwrap()
        .status
        .unwrap()
        .conditions
        .unwrap();
    assert_eq!((ready.len(), ready[0].status.as_str()), (1, "True"));
    running.stop().await;
}
