use std::sync::Arc;

use serde_json::json;

use super::*;

fn key(name: &str) -> Key {
    Key::new("pods", "default", name)
}

async fn put(store: &Store, name: &'static str) -> Result<Arc<Value>, StoreError> {
    store
        .write(move |transaction| {
            Ok::<_, StoreError>(transaction.put(key(name), json!({ "metadata": { "name": name } })))
        })
        .await
}

#[tokio::test]
async fn a_write_is_read_back_after_reopening_and_revisions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let first = put(&store, "a").await.unwrap();
    assert_eq!(first["metadata"]["resourceVersion"], "1");
    store.close().await;

    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.snapshot().get(&key("a")), Some(&first));
    let second = put(&store, "b").await.unwrap();
    assert_eq!(second["metadata"]["resourceVersion"], "2");
}

#[tokio::test]
async fn a_refused_transaction_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let result: Result<(), StoreError> = store
        .write(|transaction| {
            transaction.put(key("a"), json!({ "metadata": {} }));
            Err(StoreError::Damaged("no".into()))
        })
        .await;
    assert!(result.is_err());
    assert_eq!(store.snapshot().revision, 0);
    assert!(store.events_after(0, 10).unwrap().is_empty());
}

#[tokio::test]
async fn events_follow_a_revision_and_expire() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    put(&store, "a").await.unwrap();
    put(&store, "b").await.unwrap();
    let events = store.events_after(1, 10).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].key, key("b"));
    assert!(store.events_after(9, 10).is_err());
    store.close().await;

    let store = Store::open(folder.path()).unwrap();
    assert!(
        store.events_after(1, 10).is_err(),
        "the history ends with the process"
    );
    assert!(store.events_after(2, 10).unwrap().is_empty());
}

#[tokio::test]
async fn concurrent_writers_all_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let writers = (0..200).map(|number| {
        let store = store.clone();
        async move {
            let name = format!("p{number}");
            store
                .write(move |transaction| {
                    Ok::<_, StoreError>(transaction.put(key(&name), json!({ "metadata": {} })))
                })
                .await
        }
    });
    for result in futures::future::join_all(writers).await {
        result.unwrap();
    }
    assert_eq!(store.snapshot().revision, 200);
    assert_eq!(store.snapshot().list("pods", Some("default")).count(), 200);
    assert_eq!(store.snapshot().list("pods", Some("other")).count(), 0);
}

#[tokio::test]
async fn the_history_forgets_the_oldest_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let many = u64::try_from(history::EVENTS).unwrap() + 10;
    store
        .write(move |transaction| {
            for number in 0..many {
                transaction.put(key(&format!("p{}", number % 7)), json!({ "metadata": {} }));
            }
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    assert_eq!(
        store.events_after(9, 1).unwrap_err(),
        Expired { asked: 9, oldest: 10 }
    );
    assert_eq!(store.events_after(10, 1).unwrap()[0].revision, 11);
    assert_eq!(store.events_after(many, 1).unwrap().len(), 0);
}
