//! Calls the CNI plugin for a pod, as a container runtime would, with the result of a plugin before it in
//! the chain: the network that `network` made.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use trefoil_cni::runtime::{self, Call};

use super::daemon::Daemon;
use super::pod::MadePod;

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Add,
    Delete,
}

/// ADD: the pod gets its plane, or the pod is not to be started.
pub(crate) async fn add(daemon: &Daemon, pod: &MadePod) -> anyhow::Result<()> {
    let called = call(daemon, pod, Command::Add).await;
    called.with_context(|| format!("the pod was refused: see {}", agent_log(daemon, pod)))
}

/// DEL: the pod is gone.
pub(crate) async fn delete(daemon: &Daemon, pod: &MadePod) -> anyhow::Result<()> {
    if pod.uid.is_empty() {
        return Ok(());
    }
    call(daemon, pod, Command::Delete).await
}

fn agent_log(daemon: &Daemon, pod: &MadePod) -> String {
    let log = daemon.mesh.log(&format!("{}-agent", pod.node().name()));
    log.display().to_string()
}

async fn call(daemon: &Daemon, pod: &MadePod, command: Command) -> anyhow::Result<()> {
    let binary = super::binary("trefoil-cni")?;
    let call = Call {
        binary: Path::new(&binary),
        configuration: &configuration(daemon, pod),
        container_id: &pod.uid,
        netns: &pod.netns_path(),
        interface: "eth0",
        arguments: &[
            ("K8S_POD_NAMESPACE", &pod.namespace),
            ("K8S_POD_NAME", &pod.name),
            ("K8S_POD_UID", &pod.uid),
            ("K8S_POD_INFRA_CONTAINER_ID", &pod.uid),
        ],
        previous_result: Some(&previous_result(pod)),
    };
    match command {
        Command::Add => drop(runtime::add(call).await?),
        Command::Delete => runtime::del(call).await?,
    }
    Ok(())
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
    })
}

fn previous_result(pod: &MadePod) -> Value {
    let (v4, v6) = (pod.addresses.v4(), pod.addresses.v6());
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "eth0", "sandbox": pod.netns_path() }],
        "ips": [
            { "interface": 0, "address": format!("{v4}/32"), "gateway": pod.node().pod_v4(1) },
            { "interface": 0, "address": format!("{v6}/128"), "gateway": super::mesh::GATEWAY_V6 },
        ],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    })
}
