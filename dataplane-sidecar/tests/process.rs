//! The sidecar as a process: what it says of itself while the control plane is away, and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::watch;
use trefoil_api::names::MESH_SETTINGS;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::istio::security::{Action, Authorization, Scope};
use trefoil_api::proto::istio::workload::{Address, Workload, address};
use trefoil_api::proto::trefoil::v1::{MeshSettings, Outbound};
use trefoil_api::proto::type_url;
use trefoil_dataplane_process::admin::ask;
use trefoil_dataplane_process::remember::Remember;
use trefoil_dataplane_state::discovery::Held;

const BINARY: &str = env!("CARGO_BIN_EXE_trefoil-sidecar");

struct Running {
    process: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Running {
    /// A sidecar whose control plane nobody answers for.
    async fn new() -> Self {
        Self::remembering(&Held::new()).await
    }

    /// One of which a predecessor remembered this.
    async fn remembering(held: &Held) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        remember(&state, held).await;
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
            .args([Path::new("--state-dir"), &state])
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

/// Writes what a sidecar writes, if there is anything.
async fn remember(folder: &Path, held: &Held) {
    if held.is_empty() {
        return;
    }
    let (sender, receiver) = watch::channel(Held::new());
    sender.send_replace(held.clone());
    drop(sender);
    Remember::new(folder.join("last-known-good"), Duration::ZERO)
        .run(receiver)
        .await;
}

/// One resource in a response.
fn response<M: Message>(url: &str, name: &str, message: &M) -> DeltaDiscoveryResponse {
    let value = message.encode_to_vec();
    let type_url = url.to_owned();
    DeltaDiscoveryResponse {
        type_url: url.into(),
        resources: vec![Resource {
            name: name.into(),
            version: "1".into(),
            resource: Some(prost_types::Any { type_url, value }),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_with_what_it_remembers_and_awaits_its_certificate() {
    let policy = Authorization {
        name: "nobody".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace.into(),
        action: Action::Allow.into(),
        ..Authorization::default()
    };
    let workload = Workload {
        uid: "Kubernetes//Pod/shop/web".into(),
        name: "web".into(),
        namespace: "shop".into(),
        addresses: vec![vec![10, 0, 0, 1].into()],
        ..Workload::default()
    };
    let uid = workload.uid.clone();
    let address = Address {
        r#type: Some(address::Type::Workload(workload)),
    };
    let settings = MeshSettings {
        outbound: Outbound::RegistryOnly.into(),
        connection_max_age: 60,
        trust_domain: "cluster.local".into(),
        authority: None,
    };
    let mut held = Held::new();
    for one in [
        response(type_url::HTTP_AUTHORIZATION, "shop/nobody", &policy),
        // There are no routes.
        DeltaDiscoveryResponse {
            type_url: type_url::HTTP_ROUTE.into(),
            ..DeltaDiscoveryResponse::default()
        },
        response(type_url::MESH_SETTINGS, MESH_SETTINGS, &settings),
        response(type_url::ADDRESS, &uid, &address),
    ] {
        held.apply(one, &[]);
    }
    let running = Running::remembering(&held).await;
    let shown = |text: &str, what: &str| assert!(text.contains(what), "{text}");
    shown(&running.get("/policies").await.1, "shop/nobody");
    shown(&running.get("/workloads").await.1, &uid);
    shown(&running.get("/settings").await.1, r#""registryOnly":true"#);
    let awaited = loop {
        let (status, awaited) = running.get("/healthz/ready").await;
        assert_eq!(status, 503, "it has no certificate");
        if awaited.contains("certificate") && !awaited.contains("policies and workloads") {
            break awaited;
        }
        tokio::task::yield_now().await;
    };
    shown(&awaited, "a certificate from the control plane");
    running.signal(Signal::TERM);
    assert!(running.end().await.success());
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
