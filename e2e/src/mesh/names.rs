//! Where a local mesh keeps what the tests look at from outside.

use std::path::PathBuf;

use super::{Mesh, Pod};

impl Mesh {
    /// Everything of it.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        PathBuf::from("/run/trefoil/local").join(&self.name)
    }

    /// A folder of the tests' own, which pods see too: a pod sees nothing of the mesh's folder.
    pub fn scratch(&self) -> std::io::Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("trefoil-{}", self.name));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The kubeconfig of this machine's users.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory().join("kubeconfig")
    }

    /// The root of the mesh's certificates.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory().join("root").join("root-cert.pem")
    }

    /// The output of a process.
    #[must_use]
    pub fn log(&self, process: &str) -> PathBuf {
        self.directory().join("logs").join(format!("{process}.log"))
    }

    /// The network between nodes, where the control plane is.
    #[must_use]
    pub fn lan(&self) -> String {
        format!("{}-lan", self.name)
    }

    /// A node's network namespace.
    #[must_use]
    pub fn node(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }

    /// A pod's network namespace.
    #[must_use]
    pub fn netns(&self, pod: &Pod) -> String {
        format!("{}-{}-{}", self.name, pod.namespace, pod.name)
    }

    /// The control plane, as it is reached from the network between nodes and from pods.
    #[must_use]
    pub fn control_plane(&self) -> String {
        "https://172.30.0.1:15012".into()
    }
}
