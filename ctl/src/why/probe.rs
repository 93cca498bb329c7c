//! A real connection from the client's namespace, and the planes' lines about it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ends::{End, Target};
use super::{Line, Log};
use crate::local::mesh::Mesh;
use crate::local::network::connect_in;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(4);
/// How long a refusal may take to come back: capture accepts every connection first.
const REFUSAL: Duration = Duration::from_millis(1500);
/// How long the planes may take to write, on a busy machine too: taken for silence, a line that comes later
/// would have the application blamed for what a plane decided.
const LINES: Duration = Duration::from_secs(4);

/// What the client saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// The server spoke.
    Answered,
    /// It stayed open, or ended once the client had.
    Open,
    /// It was closed before the client had said anything.
    Closed,
    /// It could not be made.
    Refused(String),
    /// Nobody answered.
    Silent,
}

/// A connection that was tried.
#[derive(Debug)]
pub(super) struct Probe {
    /// What the client saw.
    pub(super) outcome: Outcome,
    /// What the client's plane says.
    pub(super) outbound: Option<Line>,
    /// What the server's plane says.
    pub(super) inbound: Option<Line>,
}

/// Tries.
pub(super) async fn make(mesh: &Mesh, client: &End, target: &Target) -> Probe {
    let logs_of = |end: &End| -> Vec<Log> { logs(mesh, end).into_iter().map(Log::from_now).collect() };
    let outbound = logs_of(client);
    let inbound: Vec<Log> = target.end.iter().flat_map(logs_of).collect();
    let netns = mesh.pod_netns(&client.namespace, &client.pod);
    let Some(address) = target.address else {
        return Probe {
            outcome: Outcome::Silent,
            outbound: None,
            inbound: None,
        };
    };
    let connected = tokio::time::timeout(CONNECT, connect_in(&netns, address.ip(), address.port())).await;
    let mut source = String::new();
    let outcome = match connected {
        Err(_) => Outcome::Silent,
        Ok(Err(error)) => Outcome::Refused(error.root_cause().to_string()),
        Ok(Ok(stream)) => {
            source = stream
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default();
            watch(stream).await
        }
    };
    let host = source.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
    let outbound = wait(&outbound, |line| {
        line.get("direction") == "outbound" && line.get("src.addr") == source
    })
    .await;
    let blamed = outbound
        .as_ref()
        .is_some_and(|line| matches!(line.get("layer"), "node" | "sidecar"));
    let patience = target.end.is_some() && !host.is_empty() && !blamed;
    let is_inbound =
        |line: &Line| line.get("direction") == "inbound" && line.get("src.addr").starts_with(&host);
    let inbound = if patience {
        wait(&inbound, is_inbound).await
    } else {
        None
    };
    Probe {
        outcome,
        outbound,
        inbound,
    }
}

/// Where a pod's planes write.
fn logs(mesh: &Mesh, end: &End) -> [PathBuf; 2] {
    let sidecar = mesh.pod_directory(&end.namespace, &end.pod).join("sidecar.log");
    [sidecar, mesh.log(&format!("{}-node", end.node))]
}

/// What becomes of a connection over which the client says nothing.
async fn watch(mut stream: TcpStream) -> Outcome {
    let mut bytes = [0; 64];
    match tokio::time::timeout(REFUSAL, stream.read(&mut bytes)).await {
        Ok(Ok(0) | Err(_)) => return Outcome::Closed,
        Ok(Ok(_)) => return Outcome::Answered,
        Err(_) => {}
    }
    // An orderly end, so that the planes write their lines; whether it is answered does not matter.
    let _ = stream.shutdown().await;
    let _ = tokio::time::timeout(REFUSAL, stream.read(&mut bytes)).await;
    Outcome::Open
}

async fn wait(logs: &[Log], is_it: impl Fn(&Line) -> bool) -> Option<Line> {
    let found = async {
        loop {
            if let Some(line) = logs.iter().flat_map(Log::lines).find(|line| is_it(line)) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LINES, found).await.ok()
}
