//! One node proxy's connection: a greeting, a snapshot, then changes; one message at a time, each answered.

use std::os::fd::AsFd;

use tokio::sync::mpsc;
use trefoil_api::proto::istio::workload::zds::{
    AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello, workload_request::Payload, workload_response,
};
use trefoil_packets::PacketSocket;

use super::{ANSWER, Command, Delivery, FedPod, Feed, FeedError};

/// Uids that a node proxy is told when it connects.
struct Snapshot {
    fed: Vec<String>,
    kept: Vec<String>,
}

impl Feed {
    /// Serves a connection until the other end goes.
    pub(super) async fn converse(&self, socket: &PacketSocket) -> Result<(), FeedError> {
        let Some((hello, _)) = tokio::time::timeout(ANSWER, socket.receive::<ZdsHello>())
            .await
            .map_err(|_| FeedError::Silent)??
        else {
            return Ok(());
        };
        if hello.version() != Version::V1 {
            return Err(FeedError::Protocol(
                "greeted with a version that is not spoken here",
            ));
        }
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open)
            .await
            .map_err(|_| FeedError::Protocol("the agent is going"))?;
        let (number, snapshot, queue) = self.join();
        tracing::info!(
            number,
            pods = snapshot.fed.len(),
            kept = snapshot.kept.len(),
            "node proxy connected"
        );
        let ended = self.feed(socket, number, snapshot, queue).await;
        self.leave(number);
        ended
    }

    async fn feed(
        &self,
        socket: &PacketSocket,
        number: u64,
        snapshot: Snapshot,
        mut queue: mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), FeedError> {
        for uid in snapshot.fed {
            self.send_add(socket, number, &uid).await?;
        }
        for uid in snapshot.kept {
            let keep = Payload::Keep(KeepWorkload { uid: uid.clone() });
            let refusal = exchange(socket, keep, None).await?;
            tracing::info!(%uid, %refusal, "kept: its network is not found yet");
        }
        let refusal = exchange(socket, Payload::SnapshotSent(SnapshotSent {}), None).await?;
        if !refusal.is_empty() {
            tracing::warn!(%refusal, "node proxy did not accept the snapshot");
        }
        loop {
            let command = tokio::select! {
                command = queue.recv() => command,
                unasked = socket.receive::<WorkloadResponse>() => {
                    return match unasked? {
                        None => Ok(()),
                        Some(_) => Err(FeedError::Protocol("an answer that nothing asked for")),
                    };
                }
            };
            match command {
                None => return Ok(()),
                Some(Command::Add(uid)) => self.send_add(socket, number, &uid).await?,
                Some(Command::Del(uid)) => {
                    let del = Payload::Del(DelWorkload { uid: uid.clone() });
                    let refusal = exchange(socket, del, None).await?;
                    if !refusal.is_empty() {
                        tracing::warn!(%uid, %refusal, "node proxy did not accept the end of a pod");
                    }
                }
            }
        }
    }

    /// Sends a pod, unless it left the feed meanwhile, and settles its delivery.
    async fn send_add(&self, socket: &PacketSocket, number: u64, uid: &str) -> Result<(), FeedError> {
        let Some(pod) = self.lock().pods.get(uid).map(|entry| entry.pod.clone()) else {
            return Ok(());
        };
        let refusal = exchange(socket, add(&pod), Some(&pod)).await?;
        let delivery = if refusal.is_empty() {
            Delivery::Accepted { connection: number }
        } else {
            tracing::warn!(%uid, %refusal, "node proxy refused a pod");
            Delivery::Refused(refusal)
        };
        if let Some(entry) = self.lock().pods.get(uid)
            && entry.pod.network.identity() == pod.network.identity()
        {
            entry.delivery.send_replace(delivery);
        }
        Ok(())
    }

    /// Makes a connection the newest; what is in the feed now is its snapshot.
    fn join(&self) -> (u64, Snapshot, mpsc::UnboundedReceiver<Command>) {
        let (sender, queue) = mpsc::unbounded_channel();
        let served = self.store.pods();
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.connections.insert(number, sender);
        let snapshot = Snapshot {
            fed: inner.pods.keys().cloned().collect(),
            kept: inner.to_keep(served),
        };
        inner.kept.extend(snapshot.kept.iter().cloned());
        (number, snapshot, queue)
    }

    /// Forgets a connection. If it was the newest, the one before gets what only this one was told.
    fn leave(&self, number: u64) {
        let mut inner = self.lock();
        inner.connections.remove(&number);
        let Some((&newest, queue)) = inner.connections.last_key_value() else {
            return;
        };
        if newest > number {
            return;
        }
        for (uid, entry) in &inner.pods {
            if *entry.delivery.borrow() != (Delivery::Accepted { connection: newest }) {
                queue.send(Command::Add(uid.clone())).ok();
            }
        }
    }
}

fn add(pod: &FedPod) -> Payload {
    Payload::Add(AddWorkload {
        uid: pod.uid.clone(),
        workload_info: Some(WorkloadInfo {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
        }),
    })
}

/// Sends one message and returns what the answer complains about; empty if it was accepted.
async fn exchange(
    socket: &PacketSocket,
    payload: Payload,
    pod: Option<&FedPod>,
) -> Result<String, FeedError> {
    let request = WorkloadRequest {
        payload: Some(payload),
    };
    let descriptors: Vec<_> = pod.map(|pod| pod.network.as_fd()).into_iter().collect();
    let answered = async {
        socket.send(&request, &descriptors).await?;
        socket.receive::<WorkloadResponse>().await
    };
    let answer = tokio::time::timeout(ANSWER, answered)
        .await
        .map_err(|_| FeedError::Silent)??;
    let Some((response, _)) = answer else {
        return Err(FeedError::Protocol("went before it answered"));
    };
    match response.payload {
        Some(workload_response::Payload::Ack(ack)) => Ok(ack.error),
        None => Err(FeedError::Protocol("an answer without content")),
    }
}
