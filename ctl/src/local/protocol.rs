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
use super::process::ProcessStatus;

/// A question to the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Request {
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
pub(crate) enum Response {
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
pub(crate) struct PodRequest {
    /// Its namespace.
    pub(crate) namespace: String,
    /// The mode of the namespace, which is then created if it does not exist.
    pub(crate) create_namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
    /// The node, or whichever has the fewest pods.
    pub(crate) node: Option<String>,
    /// Its service account.
    pub(crate) service_account: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The ports that it will listen on; it is ready once it does.
    pub(crate) ports: Vec<u16>,
    /// Services that are made for it.
    pub(crate) services: Vec<ServiceRequest>,
    /// Host name and the headless service that it is part of, as of a StatefulSet.
    pub(crate) subdomain: Option<String>,
    /// The program.
    pub(crate) command: Vec<String>,
    /// The user that it runs as.
    pub(crate) user: Option<(u32, u32)>,
    /// The daemon runs it, rather than who asks.
    pub(crate) detach: bool,
}

/// A Service that is made for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceRequest {
    /// Its name; its endpoints are the pods with label `app` of this value.
    pub(crate) name: String,
    /// Its port.
    pub(crate) port: u16,
    /// The pods' port.
    pub(crate) target: u16,
}

/// What runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LocalStatus {
    /// Names of the nodes.
    pub(crate) nodes: Vec<String>,
    /// The mesh's own processes.
    pub(crate) processes: Vec<ProcessStatus>,
    /// The pods.
    pub(crate) pods: Vec<PodStatus>,
}

/// A pod that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PodStatus {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its node.
    pub(crate) node: String,
    /// Its addresses.
    pub(crate) addresses: Vec<String>,
    /// It was created with a sidecar.
    pub(crate) sidecar: Option<ProcessStatus>,
    /// The program's process id.
    pub(crate) pid: Option<u32>,
    /// What was run.
    pub(crate) command: Vec<String>,
}

/// One side of a conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: BufReader<UnixStream>,
}

impl Conversation {
    /// A conversation over an accepted connection.
    pub(crate) fn over(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// A conversation with the daemon of a mesh.
    pub(crate) async fn with_daemon(mesh: &Mesh) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(mesh.socket()).await.with_context(|| {
            format!(
                "no mesh {:?} runs on this machine: start one with `trefoilctl local up`",
                mesh.name
            )
        })?;
        Ok(Self::over(stream))
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line).await?)
    }

    /// The next message; none where the other side has gone.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    /// Asks, and awaits the answer. A refusal is an error.
    pub(crate) async fn ask(&mut self, request: &Request) -> anyhow::Result<Response> {
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
