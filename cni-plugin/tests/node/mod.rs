//! A node around the agent: an API server, a control plane and a node proxy that do what the tests say, and
//! the agent itself as a process.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod api;
pub mod control_plane;
pub mod proxy;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use trefoil_api::proto::trefoil::v1::Plane;
use trefoil_cni::kernel::inspect;
use trefoil_cni::runtime::{self, Call, RuntimeError};

use crate::lab::{Lab, POD};

/// Long enough for anything that works; only failures wait for it.
pub const PATIENCE: Duration = Duration::from_secs(15);

pub const UID: &str = "0f3a9c1e-0000-4000-8000-000000000001";

pub struct Node {
    pub lab: Lab,
    pub folder: tempfile::TempDir,
    pub api: api::Api,
    pub control_plane: control_plane::ControlPlane,
    agent: Option<Child>,
}

impl Node {
    /// A node with a namespace `shop` of that mode, one pod's network, and a running agent.
    pub async fn new(mode: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api = api::Api::start().await;
        api.put_namespace("shop", &json!({"trefoil.dev/dataplane-mode": mode}));
        api.put_namespace("plain", &json!({}));
        api.put_namespace("kube-system", &json!({}));
        let control_plane = control_plane::ControlPlane::start(folder.path()).await;
        let mut node = Self {
            lab: Lab::new().await,
            folder,
            api,
            control_plane,
            agent: None,
        };
        node.start_agent();
        node
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// What the agent takes for `/proc`.
    fn proc_root(&self) -> PathBuf {
        self.folder.path().join("proc")
    }

    /// Has the agent see a process of a pod, in the network of the lab's pod.
    pub fn show_process(&self, process: u32, pod_uid: &str) {
        let folder = self.proc_root().join(process.to_string());
        std::fs::create_dir_all(folder.join("ns")).unwrap();
        let groups = format!("0::/kubepods.slice/pod{pod_uid}/container\n");
        std::fs::write(folder.join("cgroup"), groups).unwrap();
        let fields = ["0"; 30].join(" ");
        std::fs::write(folder.join("stat"), format!("{process} (web) S {fields}\n")).unwrap();
        std::os::unix::fs::symlink(&self.lab.pod_path, folder.join("ns/net")).unwrap();
    }

    pub fn start_agent(&mut self) {
        let kubeconfig = self.folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.api.kubeconfig()).unwrap();
        let path = |name: &str| self.folder.path().join(name);
        std::fs::create_dir_all(self.proc_root()).unwrap();
        let mut appended = std::fs::OpenOptions::new();
        let log = appended.create(true).append(true).open(path("log")).unwrap();
        let host = PathBuf::from("/run/netns").join(self.lab.client_name());
        let agent = Command::new(env!("CARGO_BIN_EXE_trefoil-cni"))
            .args(["agent", "--node", "node-1", "--metrics-listen", "127.0.0.1:0"])
            .arg("--run-dir")
            .arg(self.run_dir())
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--proc-root")
            .arg(self.proc_root())
            .args(["--control-plane", &self.control_plane.address])
            .arg("--token")
            .arg(path("token"))
            .arg("--root-cert")
            .arg(path("root-cert.pem"))
            .arg("--host-netns")
            .arg(host)
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    /// Whether an agent of this node ever said this.
    pub fn agent_says(&self, words: &str) -> bool {
        let log = std::fs::read_to_string(self.folder.path().join("log"));
        log.is_ok_and(|log| log.contains(words))
    }

    /// Sets how many descriptors the running agent may have; returns how many it could before.
    pub fn limit_agents_descriptors(&self, current: u64) -> u64 {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

        let agent = self.agent.as_ref().unwrap();
        let limit = Rlimit {
            current: Some(current),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        let former = prlimit(Pid::from_raw(agent.id().cast_signed()), Resource::Nofile, limit);
        former.unwrap().current.unwrap_or(1024)
    }

    /// SIGKILL.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    pub fn pod(&self, namespace: &str, sidecar: bool) -> Value {
        let initial = if sidecar {
            json!([{"name": "trefoil-sidecar", "restartPolicy": "Always"}])
        } else {
            json!([])
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": namespace, "uid": UID},
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "web",
                "initContainers": initial,
                "containers": [{"name": "web", "readinessProbe": {"httpGet": {"port": 8080}}}],
            },
            "status": {"phase": "Pending"},
        })
    }

    /// As a container runtime calls the plugin.
    pub async fn add(&self, namespace: &str) -> Result<Value, RuntimeError> {
        self.call(namespace, true).await
    }

    pub async fn del(&self, namespace: &str) {
        self.call(namespace, false).await.unwrap();
    }

    async fn call(&self, namespace: &str, add: bool) -> Result<Value, RuntimeError> {
        let configuration = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "trefoil-cni",
            "runDir": self.run_dir(), "stateDir": self.folder.path().join("state"),
        });
        let call = Call {
            binary: env!("CARGO_BIN_EXE_trefoil-cni").as_ref(),
            configuration: &configuration,
            container_id: "c1",
            netns: &self.lab.pod_path,
            interface: "eth0",
            arguments: &[
                ("K8S_POD_NAMESPACE", namespace),
                ("K8S_POD_NAME", "web"),
                ("K8S_POD_UID", UID),
            ],
            previous_result: Some(&previous_result()),
        };
        if add {
            runtime::add(call).await
        } else {
            runtime::del(call).await.map(|()| Value::Null)
        }
    }

    /// Waits until the agent's sockets are there.
    pub async fn agent_listens(&self) {
        let socket = self.run_dir().join("cni.sock");
        until("the agent listens", async || {
            tokio::net::UnixStream::connect(&socket).await.is_ok()
        })
        .await;
    }

    /// Waits until the kernel redirects the pod to a plane.
    pub async fn redirected(&self, plane: Plane) {
        until(&format!("the pod is redirected to {plane:?}"), async || {
            inspect(&self.lab.pod).await.unwrap().plane == plane
        })
        .await;
    }

    pub async fn plane(&self) -> Plane {
        inspect(&self.lab.pod).await.unwrap().plane
    }

    /// Waits until the plugin no longer says that it is too early.
    pub async fn add_in_time(&self, namespace: &str) -> Value {
        self.agent_listens().await;
        let mut last = None;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            match self.add(namespace).await {
                Ok(result) => return result,
                Err(error) => last = Some(error),
            }
        }
        panic!("not added: {last:?}")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_agent();
        if std::env::var_os("SHOW_LOGS").is_some() {
            let log = std::fs::read_to_string(self.folder.path().join("log"));
            eprintln!("{}", log.unwrap_or_default());
        }
    }
}

pub fn previous_result() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": format!("{POD}/24"), "interface": 0}],
        "interfaces": [{"name": "eth0", "socketPath": "/a-field/of-a-newer-version"}],
    })
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
