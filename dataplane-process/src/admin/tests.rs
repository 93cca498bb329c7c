use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use trefoil_dataplane_state::state::fixtures::{
    of_policies, of_services, of_workloads, service, serving, workload,
};

struct Served {
    socket: PathBuf,
    drain: Drain,
    /// Keeps the level changeable.
    _filter: Box<dyn std::any::Any>,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn new(store: &Store) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("own/admin.sock");
        let drain = Drain::new();
        let (level, filter) = LogLevel::detached();
        let readiness = Readiness::new();
        std::mem::forget(readiness.block("certificates"));
        let admin = Admin::new(drain.clone(), level)
            .with_store(store)
            .with_readiness(&readiness)
            .with("/status", || async { json!({ "plane": "test" }) });
        let path = socket.clone();
        tokio::spawn(async move { admin.serve(&path).await });
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        Self {
            socket,
            drain,
            _filter: Box::new(filter),
            _folder: folder,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let body = body.to_owned().into_bytes();
        let answer = ask(&self.socket, method, path, body).await.expect("an answer");
        let value = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status, value)
    }
}

#[tokio::test]
async fn shows_what_is_known_to_its_owner_alone() {
    let store = Store::new();
    let key = "shop/cart.shop.svc.cluster.local";
    store.apply(&of_workloads(&[serving(
        workload("cart", [10, 0, 0, 1]),
        key,
        80,
        8080,
    )]));
    store.apply(&of_services(&[service("cart", [10, 96, 0, 1], 80)]));
    store.apply(&of_policies(&[]));
    let served = Served::new(&store).await;
    let mode = std::fs::metadata(&served.socket)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (status, known) = served.ask("GET", "/workloads", "").await;
    assert_eq!(status, 200);
    assert_eq!(
        known["workloads"][0]["identity"],
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(known["services"][0]["endpoints"][0], "Kubernetes//Pod/shop/cart");
    assert_eq!(
        served.ask("GET", "/policies", "").await,
        (200, json!({ "policies": [] }))
    );
    assert_eq!(
        served.ask("GET", "/status", "").await,
        (200, json!({ "plane": "test" }))
    );
    assert_eq!(served.ask("GET", "/healthz/ready", "").await.0, 503);
    assert_eq!(served.ask("GET", "/absent", "").await.0, 404);
}

#[tokio::test]
async fn the_log_level_is_changed_or_the_wish_refused() {
    let served = Served::new(&Store::new()).await;
    assert_eq!(
        served.ask("PUT", "/log-level", "debug").await,
        (200, json!({ "level": "debug" }))
    );
    assert_eq!(
        served.ask("GET", "/log-level", "").await,
        (200, json!({ "level": "debug" }))
    );
    let (status, body) = served.ask("PUT", "/log-level", "hyper=loud").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().expect("why").contains("hyper=loud"));
}

#[tokio::test]
async fn draining_begins_on_request() {
    let served = Served::new(&Store::new()).await;
    assert_eq!(served.ask("POST", "/drain", "").await.0, 200);
    assert!(served.drain.is_draining());
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named() {
    let error = ask(Path::new("/nowhere/admin.sock"), "GET", "/status", "").await;
    assert!(
        error
            .expect_err("no socket")
            .to_string()
            .contains("/nowhere/admin.sock")
    );
}
