//! The pods that most suites use: in each of the namespaces `none`, `sidecar` and `ambient`, a client on the
//! first node and a server on each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

use super::{Mesh, Pod, PodPlan};
use crate::hbone::client::Seen;
use crate::programs::call::{Calls, Target};
use crate::programs::port;

/// The namespaces, each named after its mode.
pub const NAMESPACES: [&str; 3] = ["none", "sidecar", "ambient"];
/// The nodes.
pub const NODES: [&str; 2] = ["n1", "n2"];

/// A mesh with the standard pods.
#[derive(Debug)]
pub struct Standard {
    /// The mesh.
    pub mesh: Mesh,
    clients: BTreeMap<&'static str, Pod>,
    servers: BTreeMap<(&'static str, &'static str), Pod>,
}

impl Standard {
    /// Starts it.
    pub async fn up(name: &str, flags: &[&str]) -> anyhow::Result<Self> {
        Self::over(Mesh::up(name, flags).await?).await
    }

    /// Makes the standard pods in a mesh.
    pub async fn over(mesh: Mesh) -> anyhow::Result<Self> {
        let mut standard = Self {
            mesh,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
        };
        for namespace in NAMESPACES {
            for node in NODES {
                let name = format!("server-{node}");
                let server = standard.run_server(namespace, &name, node).await?;
                standard.servers.insert((namespace, node), server);
            }
            let client = standard.run_client(namespace, "client", "client", "n1").await?;
            standard.clients.insert(namespace, client);
        }
        Ok(standard)
    }

    /// One more server, under the service account `server`, behind the service `server`.
    pub async fn run_server(&self, namespace: &str, name: &str, node: &str) -> anyhow::Result<Pod> {
        let plan = PodPlan {
            namespace: namespace.into(),
            name: name.into(),
            node: node.into(),
            account: "server".into(),
            labels: vec!["app=server".into()],
            ports: vec![port::HTTP, port::TCP],
            services: vec![format!("server:80:{}", port::HTTP)],
            ..PodPlan::default()
        };
        let program = self.mesh.program()?;
        let who = format!("{namespace}/{name}");
        self.mesh.run(&plan, &[&program, "serve", "--name", &who]).await
    }

    /// A server of one version, behind a service of that name.
    pub async fn run_version(&self, namespace: &str, version: &str) -> anyhow::Result<Pod> {
        let plan = PodPlan {
            namespace: namespace.into(),
            name: version.into(),
            node: "n2".into(),
            account: "server".into(),
            labels: vec![format!("app={version}")],
            services: vec![format!("{version}:80:{}", port::HTTP)],
            ..PodPlan::default()
        };
        let who = format!("{namespace}/{version}");
        let program = self.mesh.program()?;
        self.mesh.run(&plan, &[&program, "serve", "--name", &who]).await
    }

    /// One more client, which only waits for what is run in it.
    pub async fn run_client(
        &self,
        namespace: &str,
        name: &str,
        account: &str,
        node: &str,
    ) -> anyhow::Result<Pod> {
        let plan = PodPlan {
            namespace: namespace.into(),
            name: name.into(),
            node: node.into(),
            account: account.into(),
            ..PodPlan::default()
        };
        self.mesh.run(&plan, &["sleep", "infinity"]).await
    }

    /// The client of a namespace.
    pub fn client(&self, namespace: &str) -> anyhow::Result<&Pod> {
        self.clients
            .get(namespace)
            .with_context(|| format!("no client in {namespace}"))
    }

    /// The server of a namespace on a node.
    pub fn server(&self, namespace: &str, node: &str) -> anyhow::Result<&Pod> {
        let mut servers = self.servers.iter();
        let server = servers.find(|((of, on), _)| *of == namespace && *on == node);
        Ok(server
            .with_context(|| format!("no server in {namespace} on {node}"))?
            .1)
    }

    /// Calls targets from the client of a namespace.
    pub async fn call(&self, from: &str, targets: &[Target], attempts: usize) -> anyhow::Result<Vec<Calls>> {
        self.call_from(self.client(from)?, targets, attempts).await
    }

    /// Calls targets from a pod.
    pub async fn call_from(
        &self,
        client: &Pod,
        targets: &[Target],
        attempts: usize,
    ) -> anyhow::Result<Vec<Calls>> {
        let attempts = attempts.to_string();
        let targets: Vec<String> = targets.iter().map(Target::to_string).collect();
        let mut arguments = vec!["call", "--attempts", &attempts];
        arguments.extend(targets.iter().map(String::as_str));
        self.mesh.program_in(client, &arguments).await
    }

    /// One tunnel of the tests' own to a plane, from the client that no plane is in the way of; further headers are
    /// `NAME=VALUE`.
    pub async fn tunnel(
        &self,
        to: SocketAddr,
        authority: &str,
        credentials: &Path,
        headers: &[&str],
    ) -> anyhow::Result<Seen> {
        let (to, credentials) = (to.to_string(), credentials.to_string_lossy());
        let mut arguments = vec!["hbone-call", "--to", &to, "--authority", authority];
        arguments.extend(["--credentials", &credentials]);
        for header in headers {
            arguments.extend(["--header", header]);
        }
        self.mesh.program_in(self.client("none")?, &arguments).await
    }
}
