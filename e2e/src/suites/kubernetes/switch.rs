//! A real Kubernetes as a ground for the switch.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::Cluster;
use crate::kernel::running;
use crate::programs::load::Tally;
use crate::report::Report;
use crate::suites::switch::{Ground, Route, back_and_forth};

/// How long a load may take, beyond what it gives itself.
const LIMIT: Duration = Duration::from_secs(300);

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    back_and_forth(cluster, report).await
}

impl Ground for Cluster {
    fn between_nodes(&self) -> String {
        "kubenet".into()
    }

    async fn create(&self, objects: &str) -> anyhow::Result<()> {
        self.apply(objects).await
    }

    async fn label(&self, mode: &str) -> anyhow::Result<()> {
        Cluster::label(self, "sidecar", mode).await
    }

    async fn redirections(&self) -> anyhow::Result<Vec<String>> {
        self.redirection("sidecar", "server").await
    }

    async fn client(&self, namespace: &str) -> anyhow::Result<u32> {
        program(&format!("{namespace}/client"))
    }

    async fn server(&self, node: &str) -> anyhow::Result<u32> {
        program(&format!("sidecar/{node}"))
    }

    async fn flag(&self, client: &str) -> anyhow::Result<(String, PathBuf)> {
        let process = Ground::client(self, client).await?;
        let here = format!("/proc/{process}/root/tmp/enough");
        Ok(("/tmp/enough".into(), here.into()))
    }

    async fn load(&self, route: &Route, arguments: &[&str]) -> anyhow::Result<Tally> {
        let address = self.address(route.server, "server", route.node).await?;
        let target = format!("{address}:{}", route.port());
        let command = [&["load", "--target", &target], arguments].concat();
        self.program_in(route.client, "client", &command, LIMIT).await
    }
}

/// The process of a pod's test program, as this machine knows it.
pub(super) fn program(name: &str) -> anyhow::Result<u32> {
    let found = running("trefoil-e2e", Some(&format!("--name={name}")))?;
    found
        .first()
        .copied()
        .with_context(|| format!("{name} does not run"))
}
