//! The embedded mesh as a ground for the switch.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

use super::{Ground, Route};
use crate::mesh::Pod;
use crate::mesh::standard::{NODES, Standard};
use crate::programs::load::Tally;

impl Ground for Standard {
    fn between_nodes(&self) -> String {
        self.mesh.lan()
    }

    async fn create(&self, objects: &str) -> anyhow::Result<()> {
        self.mesh.apply(objects).await
    }

    async fn label(&self, mode: &str) -> anyhow::Result<()> {
        self.mesh.label_namespace("sidecar", mode).await
    }

    async fn redirections(&self) -> anyhow::Result<Vec<String>> {
        let mut said = Vec::new();
        for node in NODES {
            let pod = Standard::server(self, "sidecar", node)?;
            said.push(self.mesh.redirection(pod).await?);
        }
        Ok(said)
    }

    async fn client(&self, namespace: &str) -> anyhow::Result<u32> {
        inhabitant(self, Standard::client(self, namespace)?).await
    }

    async fn server(&self, node: &str) -> anyhow::Result<u32> {
        inhabitant(self, Standard::server(self, "sidecar", node)?).await
    }

    async fn flag(&self, client: &str) -> anyhow::Result<(String, PathBuf)> {
        let path = self.mesh.scratch()?.join(format!("enough-{client}"));
        Ok((path.to_string_lossy().into_owned(), path))
    }

    async fn load(&self, route: &Route, arguments: &[&str]) -> anyhow::Result<Tally> {
        let target = Standard::server(self, route.server, route.node)?.at(route.port());
        let (program, target) = (self.mesh.program()?, target.to_string());
        let command = [&[program.as_str(), "load", "--target", &target], arguments].concat();
        let limit = Duration::from_secs(300);
        let client = Standard::client(self, route.client)?;
        let output = self.mesh.exec_within(client, &command, limit).await?;
        Ok(serde_json::from_str(&output)?)
    }
}

/// A process in the network namespace of a pod.
async fn inhabitant(standard: &Standard, pod: &Pod) -> anyhow::Result<u32> {
    let netns = standard.mesh.netns(pod);
    let output = Command::new("ip")
        .args(["netns", "pids", &netns])
        .output()
        .await?;
    let pids = String::from_utf8(output.stdout)?;
    let first = pids.split_whitespace().next();
    Ok(first
        .with_context(|| format!("nothing runs in {netns}"))?
        .parse()?)
}
