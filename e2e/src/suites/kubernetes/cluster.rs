//! The cluster as its script and kubectl know it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::programs::call::{Calls, Target};

/// How long a command may take.
pub(super) const LIMIT: Duration = Duration::from_secs(90);

/// The same of helm, which waits for what it installs.
const HELM: Duration = Duration::from_secs(270);

/// The cluster, through the script that made it.
pub(super) struct Cluster {
    pub(super) script: PathBuf,
    /// What the mesh in it was installed by.
    pub(super) chart: PathBuf,
    pub(super) values: PathBuf,
}

impl Cluster {
    /// A command on a node; its output.
    pub(super) async fn on(
        &self,
        node: &str,
        command: &[&str],
        input: Option<&str>,
    ) -> anyhow::Result<String> {
        self.on_within(LIMIT, node, command, input).await
    }

    async fn on_within(
        &self,
        limit: Duration,
        node: &str,
        command: &[&str],
        input: Option<&str>,
    ) -> anyhow::Result<String> {
        let command = [&["exec", node], command].concat();
        self.ask(limit, &command, input).await
    }

    /// What the script can do; its output.
    async fn ask(&self, limit: Duration, command: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let mut child = Command::new(&self.script)
            .args(command)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = tokio::time::timeout(limit, child.wait_with_output()).await;
        let output = output.with_context(|| format!("{} took too long", command.join(" ")))??;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}", command.join(" "), output.status, told.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Cuts a node's power, or gives it back.
    pub(super) async fn power(&self, on: bool, node: &str) -> anyhow::Result<()> {
        let command = [if on { "start" } else { "stop" }, node];
        self.ask(LIMIT, &command, None).await.map(drop)
    }

    pub(super) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.on("n1", &[&["kubectl"], arguments].concat(), None).await
    }

    pub(super) async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let command = [&["run", "helm"], arguments].concat();
        self.ask(HELM, &command, None).await
    }

    /// Upgrades the mesh, with these values besides those that it was installed with.
    pub(super) async fn upgrade(&self, set: &[&str]) -> anyhow::Result<()> {
        let (chart, values) = (
            self.chart.display().to_string(),
            self.values.display().to_string(),
        );
        let set = set.join(",");
        let upgrade = [
            "upgrade",
            "trefoil",
            &chart,
            "-n",
            "trefoil-system",
            "-f",
            &values,
        ];
        let then = ["--set", &set, "--wait", "--timeout", "4m"];
        self.helm(&[&upgrade[..], &then].concat()).await.map(drop)
    }

    pub(super) async fn apply(&self, objects: &str) -> anyhow::Result<()> {
        let apply = self.on("n1", &["kubectl", "apply", "-f", "-"], Some(objects));
        apply.await.map(drop)
    }

    /// A part of this program in the client of a namespace; what it prints.
    pub(super) async fn client<Printed: DeserializeOwned>(
        &self,
        namespace: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Printed> {
        self.program_in(namespace, "client", arguments, LIMIT).await
    }

    /// A part of this program in a pod, which may take this long; what it prints.
    pub(super) async fn program_in<Printed: DeserializeOwned>(
        &self,
        namespace: &str,
        pod: &str,
        arguments: &[&str],
        limit: Duration,
    ) -> anyhow::Result<Printed> {
        let exec = ["kubectl", "exec", "-n", namespace, pod, "--", "/trefoil-e2e"];
        let command = [&exec, arguments].concat();
        let output = self.on_within(limit, "n1", &command, None).await?;
        serde_json::from_str(&output).with_context(|| format!("reading {output:?}"))
    }

    /// The address of the pod of a set on a node.
    pub(super) async fn address(&self, namespace: &str, app: &str, node: &str) -> anyhow::Result<String> {
        self.of_set(namespace, app, node, "{.items[0].status.podIP}")
            .await
    }

    /// Something about the pod of a set on a node.
    pub(super) async fn of_set(
        &self,
        namespace: &str,
        app: &str,
        node: &str,
        what: &str,
    ) -> anyhow::Result<String> {
        let (label, field) = (format!("app={app}"), format!("spec.nodeName={node}"));
        let what = format!("jsonpath={what}");
        let get = ["get", "pods", "-n", namespace, "-l", &label];
        let of = ["--field-selector", &field, "-o", &what];
        self.kubectl(&[&get[..], &of[..]].concat()).await
    }

    /// Uids of the pods of a namespace with a label.
    pub(super) async fn uids(&self, namespace: &str, label: &str) -> anyhow::Result<Vec<String>> {
        let path = "jsonpath={.items[*].metadata.uid}";
        let pods = self
            .kubectl(&["get", "pods", "-n", namespace, "-l", label, "-o", path])
            .await?;
        Ok(pods.split_whitespace().map(str::to_owned).collect())
    }

    pub(super) async fn service(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let path = "jsonpath={.spec.clusterIP}";
        self.kubectl(&["get", "service", "-n", namespace, name, "-o", path])
            .await
    }

    pub(super) async fn call(&self, from: &str, target: Target, attempts: usize) -> anyhow::Result<Calls> {
        let arguments = ["call", "--attempts", &attempts.to_string(), &target.to_string()];
        let mut calls: Vec<Calls> = self.client(from, &arguments).await?;
        calls.pop().context("no calls")
    }

    pub(super) async fn label(&self, namespace: &str, mode: &str) -> anyhow::Result<()> {
        let label = format!("trefoil.dev/dataplane-mode={mode}");
        self.kubectl(&["label", "namespace", namespace, &label, "--overwrite"])
            .await
            .map(drop)
    }

    /// What the agent says redirects the pods of a set.
    pub(super) async fn redirection(&self, namespace: &str, app: &str) -> anyhow::Result<Vec<String>> {
        let path = r"jsonpath={range .items[*]}{.metadata.annotations.trefoil\.dev/redirection}{' '}{end}";
        let label = format!("app={app}");
        let text = self
            .kubectl(&["get", "pods", "-n", namespace, "-l", &label, "-o", path])
            .await?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }
}
