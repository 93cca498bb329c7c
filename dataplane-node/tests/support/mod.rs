//! An agent for tests: it listens where the node's agent would, speaks the pod feed and keeps descriptors
//! in memory; and pods that are nothing but network namespaces.

#![allow(dead_code)]

pub(crate) mod known;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde_json::Value;
use tokio::process::{Child, Command};
use trefoil_api::proto::istio::workload::zds::{
    AddWorkload, DelWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest, WorkloadResponse, ZdsHello,
    workload_request, workload_response,
};
use trefoil_api::proto::trefoil::descriptors::{Ack, Batch, Name, Request, Response, request, response};
use trefoil_packets::{PacketListener, PacketSocket};

/// How long anything awaited here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A pod: a network namespace with its loopback up.
pub(crate) struct Pod {
    pub uid: &'static str,
    pub name: &'static str,
    pub namespace: &'static str,
    pub network: OwnedFd,
}

impl Pod {
    pub(crate) fn new(uid: &'static str, namespace: &'static str, name: &'static str) -> Self {
        let network = std::thread::spawn(|| {
            // Network namespaces alone are unshared: file descriptors stay the process's.
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").unwrap())
        });
        Self {
            uid,
            name,
            namespace,
            network: network.join().unwrap(),
        }
    }

    /// Does something within the pod.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let network = self.network.try_clone().unwrap();
        let worked = std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        worked.join().unwrap()
    }

    /// Connects to a port of the pod; fails at once where nothing listens.
    pub(crate) fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        self.within(move || {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }
}

/// Whether a connection was taken by a process: nothing listens where it goes, so it is ended by whoever
/// took it. One that still queues is not.
pub(crate) fn was_taken(stream: &mut TcpStream) -> bool {
    let taken = stream.read_exact(&mut [0]).unwrap_err().kind();
    matches!(taken, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}

type Stored = Arc<Mutex<BTreeMap<(i32, String), OwnedFd>>>;

/// The agent of one node.
pub(crate) struct Agent {
    pub folder: tempfile::TempDir,
    pods: Option<PacketListener>,
    pub stored: Stored,
    store: Option<tokio::task::JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let mut agent = Self {
            folder: tempfile::tempdir().unwrap(),
            pods: None,
            stored: Stored::default(),
            store: None,
        };
        agent.listen();
        agent
    }

    /// An agent begins: it holds nothing.
    pub(crate) fn listen(&mut self) {
        let path = self.folder.path().join("descriptors.sock");
        let listener = PacketListener::bind(&path).unwrap();
        self.pods = Some(PacketListener::bind(&self.folder.path().join("pods.sock")).unwrap());
        self.stored.lock().unwrap().clear();
        let stored = Arc::clone(&self.stored);
        self.store = Some(tokio::spawn(async move {
            while let Ok(socket) = listener.accept().await {
                tokio::spawn(keep(socket, Arc::clone(&stored)));
            }
        }));
    }

    /// The agent ends, and its connections with it.
    pub(crate) fn end(&mut self) {
        self.pods = None;
        self.store.take().unwrap().abort();
    }

    /// The keys of what is stored, in order.
    pub(crate) fn stored_keys(&self) -> Vec<String> {
        self.stored
            .lock()
            .unwrap()
            .keys()
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// The node proxy connects.
    pub(crate) async fn feed(&self) -> Feed {
        let accepted = self.pods.as_ref().unwrap().accept();
        let socket = tokio::time::timeout(PATIENCE, accepted).await.unwrap().unwrap();
        let (hello, _) = socket.receive::<ZdsHello>().await.unwrap().unwrap();
        assert_eq!(hello.version, 1);
        Feed { socket }
    }
}

async fn keep(socket: PacketSocket, stored: Stored) {
    while let Ok(Some((request, descriptors))) = socket.receive::<Request>().await {
        let payload = request.payload.unwrap();
        let batches = {
            let mut stored = stored.lock().unwrap();
            match payload {
                request::Payload::Put(put) => {
                    let keys = put.names.into_iter().map(|name| (name.kind, name.key));
                    stored.extend(keys.zip(descriptors));
                    None
                }
                request::Payload::Remove(remove) => {
                    for name in remove.names {
                        stored.remove(&(name.kind, name.key));
                    }
                    None
                }
                request::Payload::List(_) => Some(
                    stored
                        .iter()
                        .map(|((kind, key), descriptor)| {
                            let key = key.clone();
                            (Name { kind: *kind, key }, descriptor.try_clone().unwrap())
                        })
                        .collect::<Vec<_>>(),
                ),
            }
        };
        let sent = match batches {
            None => respond(&socket, response::Payload::Ack(Ack::default()), &[]).await,
            Some(all) => {
                let names = all.iter().map(|(name, _)| name.clone()).collect();
                let descriptors: Vec<_> = all.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
                let batch = Batch { names, last: true };
                respond(&socket, response::Payload::Batch(batch), &descriptors).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn respond(
    socket: &PacketSocket,
    payload: response::Payload,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), trefoil_packets::PacketError> {
    let payload = Some(payload);
    socket.send(&Response { payload }, descriptors).await
}

/// The agent's side of the pod feed.
pub(crate) struct Feed {
    pub socket: PacketSocket,
}

impl Feed {
    /// Sends a request, and gives what is acknowledged: empty where it was accepted.
    pub(crate) async fn says(&self, payload: workload_request::Payload, pod: Option<&Pod>) -> String {
        let descriptors: Vec<_> = pod.iter().map(|pod| pod.network.as_fd()).collect();
        let payload = Some(payload);
        self.socket
            .send(&WorkloadRequest { payload }, &descriptors)
            .await
            .unwrap();
        let received = self.socket.receive::<WorkloadResponse>();
        let received = tokio::time::timeout(PATIENCE, received).await.unwrap();
        let (response, _) = received.unwrap().unwrap();
        let workload_response::Payload::Ack(ack) = response.payload.unwrap();
        ack.error
    }

    /// The node proxy ends the connection.
    pub(crate) async fn ended(&self) -> bool {
        let received = self.socket.receive::<WorkloadResponse>();
        let received = tokio::time::timeout(PATIENCE, received).await.unwrap();
        !matches!(received, Ok(Some(_)))
    }

    pub(crate) async fn add(&self, pod: &Pod) -> String {
        let workload_info = Some(WorkloadInfo {
            name: pod.name.into(),
            namespace: pod.namespace.into(),
            service_account: "default".into(),
        });
        let uid = pod.uid.into();
        let add = AddWorkload { uid, workload_info };
        self.says(workload_request::Payload::Add(add), Some(pod)).await
    }

    pub(crate) async fn del(&self, uid: &str) -> String {
        let del = DelWorkload { uid: uid.into() };
        self.says(workload_request::Payload::Del(del), None).await
    }

    pub(crate) async fn snapshot(&self, pods: &[&Pod]) {
        for pod in pods {
            assert_eq!(self.add(pod).await, "");
        }
        let sent = workload_request::Payload::SnapshotSent(SnapshotSent {});
        assert_eq!(self.says(sent, None).await, "");
    }
}

/// A node proxy.
pub(crate) struct NodeProxy {
    pub child: Child,
    admin: PathBuf,
    metrics: String,
    readiness: String,
}

/// An address that nobody listens on now.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// What is served at a path, head and body.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}

impl NodeProxy {
    pub(crate) fn start(agent: &Agent, extra: &[&str]) -> Self {
        Self::start_as(agent, "node", "2", extra)
    }

    /// One of several: under a name, with seconds to drain.
    pub(crate) fn start_as(agent: &Agent, name: &str, drain: &str, extra: &[&str]) -> Self {
        let folder = agent.folder.path();
        let admin = folder.join(name).join("admin.sock");
        let path = |name: &str| folder.join(name);
        let (metrics, readiness) = (free_address(), free_address());
        let child = Command::new(env!("CARGO_BIN_EXE_trefoil-node"))
            .args(["run", "--node", "n1", "--control-plane", "https://127.0.0.1:9"])
            .args(["--metrics-listen", &metrics, "--readiness-listen", &readiness])
            .args([
                "--drain-deadline",
                drain,
                "--log-level",
                "warn,access=off,trefoil_dataplane_state::discovery=error",
            ])
            .arg("--token")
            .arg(path("token"))
            .arg("--root-cert")
            .arg(path("root-cert.pem"))
            .arg("--run-dir")
            .arg(folder)
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--admin-socket")
            .arg(&admin)
            .args(extra)
            .env("SECRET_OF_THE_SUPERVISOR", "not for workers")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            child,
            admin,
            metrics,
            readiness,
        }
    }

    /// The page of metrics.
    pub(crate) fn metrics(&self) -> Option<String> {
        get(&self.metrics, "/metrics")
    }

    /// The answer to a readiness probe.
    pub(crate) fn readiness(&self) -> Option<String> {
        get(&self.readiness, "/healthz/ready")
    }

    /// What the admin subcommand prints.
    pub(crate) async fn admin(&self, question: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trefoil-node"));
        let command = command
            .arg("admin")
            .arg("--admin-socket")
            .arg(&self.admin)
            .args(question);
        let output = command.output().await.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Tells it to end in good order.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Stops it, or lets it go on.
    pub(crate) fn suspend(&self, stop: bool) {
        use rustix::process::Signal;

        self.signal(if stop { Signal::STOP } else { Signal::CONT });
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// What the admin interface answers.
    pub(crate) async fn asks(&self, path: &str) -> Option<Value> {
        let answer = trefoil_dataplane_process::admin::ask(&self.admin, "GET", path, "")
            .await
            .ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// Waits until the worker of a scope serves these pods; gives its process id and user id.
    pub(crate) async fn serves(&self, scope: &str, uids: &[&str]) -> (u32, u32) {
        until(&format!("a worker of {scope} serves {uids:?}"), async || {
            let status = self.asks("/status").await?;
            let workers = status["workers"].as_array()?;
            let worker = workers.iter().find(|worker| worker["scope"] == scope)?;
            let pods = worker["pods"].as_array()?;
            let serving: Vec<_> = pods.iter().filter(|pod| pod["state"] == "serving").collect();
            let all = uids
                .iter()
                .all(|uid| serving.iter().any(|pod| pod["uid"] == *uid));
            let number = |key: &str| worker[key].as_u64().and_then(|number| u32::try_from(number).ok());
            (all && serving.len() == uids.len()).then_some(())?;
            Some((number("pid")?, number("uid")?))
        })
        .await
    }
}

/// Ends a process at once.
pub(crate) fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(process.cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

/// A line of `/proc/PID/status`.
pub(crate) fn status_of(process: u32, key: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where the descriptors of a process lead.
pub(crate) fn descriptors_of(process: u32) -> Vec<String> {
    let entries = std::fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd")).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}
