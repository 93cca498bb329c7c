use std::time::Duration;

use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::kinds;
use crate::render::Form;
use crate::selector::Selector;
use crate::store::{Key, Store, StoreError};
use crate::watch::Watch;

fn watch(from: Option<u64>, labels: &str) -> Watch {
    Watch {
        kind: &kinds::CONFIG_MAP,
        namespace: Some("a".into()),
        selector: Selector::parse(Some(labels), None).unwrap(),
        form: Form::Whole,
        from,
        bookmarks: true,
        announce_initial_end: from.is_none(),
        duration: Duration::from_secs(3600),
    }
}

async fn put(store: &Store, namespace: &'static str, times: u64, app: &'static str) {
    let write = store.write(move |transaction| {
        for _ in 0..times {
            let object = json!({ "metadata": { "name": "m", "labels": { "app": app } } });
            transaction.put(Key::new("configmaps", namespace, "m"), object);
        }
        Ok::<_, StoreError>(())
    });
    write.await.unwrap();
}

async fn next(
    lines: &mut (impl Stream<Item = Result<bytes::Bytes, std::convert::Infallible>> + Unpin),
) -> (String, Value) {
    let line: Value = serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap();
    (line["type"].as_str().unwrap().to_owned(), line["object"].clone())
}

#[tokio::test]
async fn what_is_there_comes_first_and_its_end_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    put(&store, "a", 1, "x").await;
    put(&store, "b", 1, "x").await;
    let mut lines = Box::pin(watch(None, "app=x").run(store.clone(), CancellationToken::new()));
    assert_eq!(next(&mut lines).await.0, "ADDED");
    let (name, object) = next(&mut lines).await;
    assert_eq!(name, "BOOKMARK");
    assert_eq!(
        object["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(object["metadata"]["resourceVersion"], "2");
    put(&store, "a", 1, "y").await;
    let (name, object) = next(&mut lines).await;
    assert_eq!(
        (name.as_str(), &object["metadata"]["resourceVersion"]),
        ("DELETED", &json!("3"))
    );
    assert_eq!(
        object["metadata"]["labels"]["app"], "x",
        "as it was when it was last selected"
    );
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut lines = Box::pin(watch(Some(0), "").run(store.clone(), CancellationToken::new()));
    put(&store, "a", 2, "x").await;
    assert_eq!(next(&mut lines).await.0, "ADDED");
    put(&store, "a", 20_000, "x").await;
    assert_eq!(next(&mut lines).await.0, "MODIFIED", "what it had fetched");
    let (name, status) = next(&mut lines).await;
    assert_eq!((name.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_with_its_time_and_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let stop = CancellationToken::new();
    let short = Watch {
        duration: Duration::ZERO,
        ..watch(Some(0), "")
    };
    let mut lines = Box::pin(short.run(store.clone(), stop.clone()));
    assert_eq!(next(&mut lines).await.0, "BOOKMARK");
    assert!(lines.next().await.is_none());
    let mut lines = Box::pin(watch(Some(0), "").run(store, stop.clone()));
    stop.cancel();
    assert!(lines.next().await.is_none());
}
