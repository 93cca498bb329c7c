//! What the CNI plugin tells the agent about a pod's network, and where both keep what must survive either:
//! attachments of pods, and the last known namespaces. Files are replaced atomically, never rewritten.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trefoil_api::names::MESH_NAMESPACE;
use trefoil_api::plane::{Labels, Mode};

use crate::namespace::Identity;

#[cfg(test)]
mod tests;

/// A pod's network as a container runtime made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachment {
    /// Kubernetes uid of the pod; empty from runtimes that do not say.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// The runtime's id of the sandbox; empty where no runtime told of it and the pod was found by its
    /// processes.
    pub container_id: String,
    /// Path of the network namespace, as the runtime sees it.
    pub netns: PathBuf,
    /// Addresses, as the plugins before this one report them.
    pub addresses: BTreeSet<IpAddr>,
    /// What the namespace was when the agent opened it: a path is reused.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// The pod's service account, once the agent knows the pod.
    #[serde(default)]
    pub service_account: String,
}

/// What the agent last knew of the cluster: what the plugin decides from when the agent is away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LastKnown {
    /// Labels of the namespaces.
    pub namespaces: BTreeMap<String, Labels>,
    /// Whether a pod's own label counts.
    pub pod_overrides: bool,
    /// Whether planes answer DNS queries where no label says.
    #[serde(default = "captured")]
    pub dns_capture: bool,
    /// Uids of the node proxy's pods: they are believed when the API server cannot name them.
    #[serde(default)]
    pub node_proxies: BTreeSet<String>,
    /// The request that the mesh be removed from the node, if there is one: it outlives the object that it was read
    /// from, which is removed too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<String>,
}

/// What an agent meant that did not say.
fn captured() -> bool {
    true
}

/// The directory where the agent keeps its state.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    root: PathBuf,
}

impl LastKnown {
    /// Whether a new pod of a namespace is certainly not for the mesh, whatever the pod's own labels are.
    /// These are not in the arguments of a CNI call.
    #[must_use]
    pub fn surely_unmeshed(&self, namespace: &str) -> bool {
        let labels = self.namespaces.get(namespace);
        match (namespace, labels.map(|labels| Mode::of(Some(labels)))) {
            (MESH_NAMESPACE, _) => true,
            // Enrolled only when asked to be; an exception for one pod of it is not worth a node without DNS.
            ("kube-system", None | Some(Ok(None | Some(Mode::None)))) => true,
            (_, Some(Ok(None | Some(Mode::None)))) => !self.pod_overrides,
            _ => false,
        }
    }
}

impl StateDirectory {
    /// Uses a directory, and makes it if it is not there.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root.join("pods"))?;
        Ok(Self { root: root.into() })
    }

    /// Reads a directory without making it.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// What was last known; nothing if nothing was or it cannot be read.
    #[must_use]
    pub fn last_known(&self) -> Option<LastKnown> {
        let bytes = std::fs::read(self.root.join("namespaces.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Remembers what is known.
    pub fn remember(&self, known: &LastKnown) -> io::Result<()> {
        replace(&self.root.join("namespaces.json"), &serde_json::to_vec(known)?)
    }

    /// The attachments of all pods. A file that cannot be read is as if it were not there: its pod is found
    /// by its processes.
    pub fn attachments(&self) -> io::Result<Vec<Attachment>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.root.join("pods"))? {
            let bytes = std::fs::read(entry?.path()).unwrap_or_default();
            found.extend(serde_json::from_slice(&bytes));
        }
        Ok(found)
    }

    /// The attachment of a pod, if it is remembered.
    #[must_use]
    pub fn attachment(&self, uid: &str) -> Option<Attachment> {
        let bytes = std::fs::read(self.file(uid).ok()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Remembers a pod's attachment.
    pub fn attach(&self, attachment: &Attachment) -> io::Result<()> {
        replace(&self.file(&attachment.uid)?, &serde_json::to_vec(attachment)?)
    }

    /// Forgets a pod's attachment.
    pub fn detach(&self, uid: &str) -> io::Result<()> {
        match std::fs::remove_file(self.file(uid)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file(&self, uid: &str) -> io::Result<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if uid.is_empty() || !uid.bytes().all(plain) {
            let message = format!("not a pod uid: {uid:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(self.root.join("pods").join(format!("{uid}.json")))
    }
}

/// Writes a file so that a reader, and whoever comes after a crash, sees the old content or the new.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;

    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}
