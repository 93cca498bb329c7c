//! SIGKILL at any moment: every acknowledged write is there afterwards, and no half of one.
//!
//! The child is this very binary, told by its environment to write; it prints what was acknowledged.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use trefoil_embedded_api::store::{Key, Store, StoreError};

const CHILD: &str = "TREFOIL_TEST_CRASH_STORE";
const WRITERS: u64 = 8;
const ROUNDS: u64 = 12;

fn key(side: &str, writer: u64) -> Key {
    Key::new("configmaps", side, &format!("w{writer}"))
}

/// Both sides of a pair in one transaction, now and then too large for one page.
async fn write_pair(store: &Store, writer: u64, number: u64) -> Result<u64, StoreError> {
    let size = if number % 16 == 3 { 200_000 } else { 50 };
    store
        .write(move |transaction| {
            let mut revision = 0;
            for side in ["left", "right"] {
                let object = json!({ "metadata": {}, "number": number, "padding": "x".repeat(size) });
                let put = transaction.put(key(side, writer), object);
                revision = put["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap()
                    .parse()
                    .unwrap();
            }
            transaction.delete(&Key::new(
                "pods",
                "default",
                &format!("w{writer}-{}", number.wrapping_sub(1)),
            ));
            let name = format!("w{writer}-{number}");
            transaction.put(Key::new("pods", "default", &name), json!({ "metadata": {} }));
            Ok(revision)
        })
        .await
}

fn number(store: &Store, side: &str, writer: u64) -> Option<u64> {
    store
        .snapshot()
        .get(&key(side, writer))
        .and_then(|object| object["number"].as_u64())
}

/// Not a test: what the killed child runs.
#[tokio::test(flavor = "multi_thread")]
async fn writer_child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let store = Store::open(Path::new(&folder)).unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for next in number(&store, "left", writer).map_or(0, |last| last + 1).. {
                let revision = write_pair(&store, writer, next).await.unwrap();
                println!("ack {writer} {next} {revision}");
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Runs the child until it has acknowledged so many writes, kills it, and returns the last of each writer.
fn run_and_kill(folder: &Path, acknowledged: u64) -> (HashMap<u64, u64>, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_child", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut last, mut revision, mut count) = (HashMap::new(), 0, 0);
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        let Some((_, numbers)) = line.split_once("ack ") else {
            continue;
        };
        let numbers: Vec<u64> = numbers.split(' ').filter_map(|text| text.parse().ok()).collect();
        // The last line may be cut by the kill.
        let [writer, number, written] = numbers[..] else {
            continue;
        };
        last.insert(writer, number);
        revision = revision.max(written);
        count += 1;
        if count == acknowledged {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(count >= acknowledged, "the child ended by itself");
    (last, revision)
}

fn verify(store: &Store, last: &HashMap<u64, u64>, revision: u64) {
    assert!(
        store.snapshot().revision >= revision,
        "an acknowledged revision was lost"
    );
    for (writer, acknowledged) in last {
        let found = number(store, "left", *writer);
        assert!(
            found >= Some(*acknowledged),
            "writer {writer}: {acknowledged} was acknowledged, {found:?} is there"
        );
        assert_eq!(
            found,
            number(store, "right", *writer),
            "writer {writer}: half of a write"
        );
    }
    let pods: Vec<String> = store
        .snapshot()
        .list("pods", None)
        .map(|(key, _)| key.name.to_string())
        .collect();
    for writer in last.keys() {
        let expected = format!("w{writer}-{}", number(store, "left", *writer).unwrap());
        let own: Vec<&String> = pods
            .iter()
            .filter(|name| name.starts_with(&format!("w{writer}-")))
            .collect();
        assert_eq!(
            own,
            [&expected],
            "a delete or a create of a transaction is missing"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    if std::env::var(CHILD).is_ok() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut revision = 0;
    for round in 0..ROUNDS {
        let (last, latest) = run_and_kill(&path, 20 + round * 37 % 200);
        assert!(latest > revision, "revisions must never be used twice");
        revision = latest;
        let store = Store::open(&path).unwrap();
        verify(&store, &last, revision);
        revision = store.snapshot().revision;
        store.close().await;
    }
}

/// Values that are read are those that were written, however often the store is opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_never_closed_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (last, _) = run_and_kill(folder.path(), 5);
    for _ in 0..3 {
        let store = Store::open(folder.path()).unwrap();
        let objects: Vec<Value> = last
            .keys()
            .map(|writer| (**store.snapshot().get(&key("left", *writer)).unwrap()).clone())
            .collect();
        assert!(objects.iter().all(|object| object["padding"].as_str().is_some()));
        store.close().await;
    }
}
