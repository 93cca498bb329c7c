//! The sidecar as a process: what it says of itself while the control plane is away, and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use trefoil_dataplane_core::admin::ask;

const BINARY: &str = env!("CARGO_BIN_EXE_trefoil-sidecar");

struct Running {
    process: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Running {
    /// A sidecar whose control plane nobody answers for.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("admin.sock");
        let process = Command::new(BINARY)
            .args(["run", "--pod", "web", "--namespace", "shop", "--pod-uid", "u1"])
            .args(["--node", "n1", "--control-plane", "https://127.0.0.1:9"])
            .args([
                "--metrics-listen",
                "127.0.0.1:0",
                "--readiness-listen",
                "127.0.0.1:0",
            ])
            .args([Path::new("--token"), &folder.path().join("token")])
            .args([Path::new("--root-cert"), &folder.path().join("root.pem")])
            .args([Path::new("--admin-socket"), &socket])
            .args(["--log-level", "error"])
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let mut running = Self {
            process,
            socket,
            _folder: folder,
        };
        while !running.socket.exists() {
            let ended = running.process.try_wait().expect("a child");
            assert!(ended.is_none(), "ended: {ended:?}");
            tokio::task::yield_now().await;
        }
        running
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = ask(&self.socket, "GET", path, "").await.expect("an answer");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).expect("signalled");
    }

    async fn end(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.process.wait())
            .await
            .expect("joined")
            .expect("a child")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_it_awaits_and_ends_when_told() {
    let running = Running::new().await;
    let (status, body) = running.get("/status").await;
    assert_eq!(status, 200);
    let shown: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(shown["identity"], "spiffe://cluster.local/ns/shop/sa/default");
    assert_eq!(shown["workload"], "Kubernetes//Pod/shop/web");
    assert_eq!(shown["ready"], false);
    let (status, awaited) = running.get("/healthz/ready").await;
    assert_eq!(status, 503);
    assert!(awaited.contains("policies and workloads"), "{awaited}");
    let (status, config) = running.get("/config").await;
    assert_eq!(status, 200);
    assert!(config.contains("127.0.0.1:9"), "{config}");
    let (status, connections) = running.get("/connections").await;
    assert_eq!((status, connections.as_str()), (200, r#"{"connections":[]}"#));

    let asked = Command::new(BINARY)
        .args(["admin", "log-level", "--method", "PUT", "--body", "warn"])
        .args([Path::new("--admin-socket"), &running.socket])
        .output()
        .expect("a process");
    assert!(asked.status.success());
    assert_eq!(asked.stdout, b"{\"level\":\"warn\"}\n");

    running.signal(Signal::TERM);
    assert!(running.end().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_by_the_admin_interface_ends_it_too() {
    let running = Running::new().await;
    let answer = ask(&running.socket, "POST", "/drain", "")
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(running.end().await.success());
}

#[test]
fn the_admin_subcommand_names_a_socket_that_is_not_there() {
    let asked = Command::new(BINARY)
        .args(["admin", "status", "--admin-socket", "/nowhere/admin.sock"])
        .output()
        .expect("a process");
    assert!(!asked.status.success());
    let error = String::from_utf8_lossy(&asked.stderr);
    assert!(error.contains("/nowhere/admin.sock"), "{error}");
}
