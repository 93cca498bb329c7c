//! What the daemon of a mesh on this machine is asked over its socket: one JSON object a line, answered in
//! order. No I/O besides that.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::enter::Enter;
use super::mesh::Mesh;
pub use super::process::ProcessStatus;

/// A question to the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// What runs?
    Status,
    /// End everything.
    Stop,
    /// Make a pod.
    Run(Box<PodRequest>),
    /// The program of the pod that was made over this connection has this process id.
    Started {
        /// Its id.
        pid: u32,
    },
    /// It has ended.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// How is a pod entered?
    Enter {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// End a pod and remove it.
    Delete {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Response {
    /// Done.
    Done,
    /// Not done.
    Failed {
        /// Why, and the remedy.
        reason: String,
    },
    /// What runs.
    Status(LocalStatus),
    /// The pod is made: the program is to be run like this.
    Enter {
        /// How.
        enter: Enter,
    },
}

/// A pod that is to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PodRequest {
    /// Its namespace.
    pub namespace: String,
    /// The mode of the namespace, which is then created if it does not exist.
    pub create_namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The node, or whichever has the fewest pods.
    pub node: Option<String>,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The ports that it will listen on; it is ready once it does.
    pub ports: Vec<u16>,
    /// Services that are made for it.
    pub services: Vec<ServiceRequest>,
    /// Host name and the headless service that it is part of, as of a StatefulSet.
    pub subdomain: Option<String>,
    /// The program.
    pub command: Vec<String>,
    /// The user that it runs as.
    pub user: Option<(u32, u32)>,
    /// The daemon runs it, rather than who asks.
    pub detach: bool,
}

/// A Service that is made for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRequest {
    /// Its name; its endpoints are the pods with label `app` of this value.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// The pods' port.
    pub target: u16,
}

/// What runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LocalStatus {
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// The mesh's own processes.
    pub processes: Vec<ProcessStatus>,
    /// The pods.
    pub pods: Vec<PodStatus>,
}

/// A pod that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// It was created with a sidecar.
    pub sidecar: Option<ProcessStatus>,
    /// The program's process id.
    pub pid: Option<u32>,
    /// What was run.
    pub command: Vec<String>,
}

/// One side of a conversation.
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<UnixStream>,
}

impl Conversation {
    /// A conversation over an accepted connection.
    pub fn over(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// A conversation with the daemon of a mesh.
    pub async fn with_daemon(mesh: &Mesh) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(mesh.socket()).await.with_context(|| {
            format!(
                "no mesh {:?} runs on this machine: start one with `trefoilctl local up`",
                mesh.name
            )
        })?;
        Ok(Self::over(stream))
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line).await?)
    }

    /// The next message; none where the other side has gone.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    /// Asks, and awaits the answer. A refusal is an error.
    pub async fn ask(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.send(request).await?;
        match self
            .receive()
            .await?
            .context("the daemon has gone: see its log in `trefoilctl local logs`")?
        {
            Response::Failed { reason } => anyhow::bail!("{reason}"),
            answer => Ok(answer),
        }
    }
}
