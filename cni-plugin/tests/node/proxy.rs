//! A node proxy as far as the agent sees one: takes pods from the feed and listens in their networks.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use trefoil_api::proto::istio::workload::zds::{
    Ack, Version, WorkloadRequest, WorkloadResponse, ZdsHello, workload_request::Payload, workload_response,
};
use trefoil_cni::namespace::Namespace;
use trefoil_packets::{PacketSocket, connect};

use crate::lab::listen;

type Pods = Arc<Mutex<BTreeMap<String, Vec<TcpListener>>>>;

/// Serves until dropped.
pub struct Proxy {
    pub pods: Pods,
    /// Snapshots that were completed.
    pub snapshots: Arc<Mutex<Vec<Vec<String>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub fn start(run_dir: &Path) -> Self {
        let pods = Pods::default();
        let snapshots = Arc::default();
        let task = tokio::spawn(serve(
            run_dir.join("pods.sock"),
            Arc::clone(&pods),
            Arc::clone(&snapshots),
        ));
        Self {
            pods,
            snapshots,
            task,
        }
    }

    pub fn serves(&self, uid: &str) -> bool {
        self.pods.lock().unwrap().contains_key(uid)
    }

    pub fn snapshots(&self) -> Vec<Vec<String>> {
        self.snapshots.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(path: PathBuf, pods: Pods, snapshots: Arc<Mutex<Vec<Vec<String>>>>) {
    loop {
        if let Ok(socket) = connect(&path).await {
            let hello = ZdsHello {
                version: Version::V1.into(),
            };
            if socket.send(&hello, &[]).await.is_ok() {
                converse(&socket, &pods, &snapshots).await;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn converse(socket: &PacketSocket, pods: &Pods, snapshots: &Mutex<Vec<Vec<String>>>) {
    let mut mentioned = Vec::new();
    while let Ok(Some((request, descriptors))) = socket.receive::<WorkloadRequest>().await {
        match request.payload.unwrap() {
            Payload::Add(add) => {
                assert_eq!(add.workload_info.unwrap().service_account, "web");
                mentioned.push(add.uid.clone());
                let mut pods = pods.lock().unwrap();
                pods.entry(add.uid).or_insert_with(|| listeners(&descriptors[0]));
            }
            Payload::Del(del) => drop(pods.lock().unwrap().remove(&del.uid)),
            Payload::SnapshotSent(_) => {
                pods.lock().unwrap().retain(|uid, _| mentioned.contains(uid));
                snapshots.lock().unwrap().push(mentioned.clone());
            }
            Payload::Keep(keep) => mentioned.push(keep.uid),
        }
        let payload = Some(workload_response::Payload::Ack(Ack::default()));
        if socket.send(&WorkloadResponse { payload }, &[]).await.is_err() {
            return;
        }
    }
}

fn listeners(network: &OwnedFd) -> Vec<TcpListener> {
    let path = format!("/proc/self/fd/{}", network.as_raw_fd());
    let namespace = Namespace::open(Path::new(&path)).unwrap();
    [15001, 15006, 15008].map(|port| listen(&namespace, port)).into()
}
