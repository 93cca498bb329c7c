//! Calls the CNI plugin as a container runtime would: environment, configuration on standard input, the
//! result of the plugin before it in the chain (CNI specification 1.1, sections 2 and 3).

use std::process::Stdio;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::daemon::Daemon;
use super::pod::MadePod;

/// ADD: the pod gets its plane, or the pod is not to be started.
pub(crate) async fn add(daemon: &Daemon, pod: &MadePod) -> anyhow::Result<()> {
    call(daemon, pod, "ADD")
        .await
        .context("the CNI plugin refused the pod")
}

/// DEL: the pod is gone.
pub(crate) async fn delete(daemon: &Daemon, pod: &MadePod) -> anyhow::Result<()> {
    if pod.uid.is_empty() {
        return Ok(());
    }
    call(daemon, pod, "DEL").await
}

async fn call(daemon: &Daemon, pod: &MadePod, command: &str) -> anyhow::Result<()> {
    let binary = super::binary("trefoil-cni")?;
    let arguments = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={};K8S_POD_INFRA_CONTAINER_ID={}",
        pod.namespace, pod.name, pod.uid, pod.uid
    );
    let mut child = Command::new(&binary)
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.uid)
        .env("CNI_NETNS", pod.netns_path())
        .env("CNI_IFNAME", "eth0")
        .env(
            "CNI_PATH",
            std::path::Path::new(&binary)
                .parent()
                .unwrap_or(std::path::Path::new("/")),
        )
        .env("CNI_ARGS", arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {binary}"))?;
    let mut stdin = child.stdin.take().context("the plugin has no standard input")?;
    stdin
        .write_all(configuration(daemon, pod).to_string().as_bytes())
        .await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    anyhow::ensure!(output.status.success(), "{}", refusal(&output));
    Ok(())
}

/// The plugin's error as it says it, else what it wrote.
fn refusal(output: &std::process::Output) -> String {
    let error: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let said = error.and_then(|error| {
        let details = error.get("details").and_then(Value::as_str).unwrap_or_default();
        Some(
            format!("{} {details}", error.get("msg")?.as_str()?)
                .trim()
                .to_owned(),
        )
    });
    said.unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn configuration(daemon: &Daemon, pod: &MadePod) -> Value {
    let node = daemon.mesh.node_directory(pod.node());
    json!({
        "cniVersion": "1.1.0",
        "name": "trefoil-local",
        "type": "trefoil-cni",
        "runDir": node,
        "stateDir": node.join("agent"),
        "excludeNamespaces": ["kube-system", trefoil_api::names::MESH_NAMESPACE],
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "eth0", "sandbox": pod.netns_path() }],
            "ips": [
                { "interface": 0, "address": format!("{}/32", pod.addresses.v4()), "gateway": pod.node().pod_v4(1) },
                { "interface": 0, "address": format!("{}/128", pod.addresses.v6()), "gateway": super::mesh::GATEWAY_V6 },
            ],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        },
    })
}
