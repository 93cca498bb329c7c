//! The control plane's process, and what is made of it for others: kubeconfigs and the root file.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use trefoil_api::names::port;

use super::enter::{Enter, Privilege};
use super::mesh::{API_PORT, LAN_V4, Mesh};
use super::process::{Program, Supervised};
use super::{network, objects};
use crate::ask;

/// How long the control plane may take to become ready.
const READY: Duration = Duration::from_secs(30);

/// Where planes and agents find the control plane.
pub(crate) fn url() -> String {
    format!("https://{LAN_V4}:{}", port::CONTROL_PLANE)
}

/// Starts the control plane.
pub(crate) fn start(mesh: &Mesh) -> anyhow::Result<Supervised> {
    let directory = mesh.directory();
    let path = |name: &str| directory.join(name).display().to_string();
    let any = |port: u16| format!("[::]:{port}");
    let mut command = vec![super::binary("trefoil-control-plane")?, "run".into()];
    for (flag, value) in [
        ("--store", path("store")),
        ("--api-listen", format!("{LAN_V4}:{API_PORT}")),
        ("--api-listen", format!("127.0.0.1:{API_PORT}")),
        ("--kubeconfig-out", path("control-plane/kubeconfig")),
        ("--listen", any(port::CONTROL_PLANE)),
        ("--webhook-listen", any(port::WEBHOOK)),
        ("--metrics-listen", any(port::CONTROL_PLANE_METRICS)),
        ("--admin-socket", mesh.control_plane_admin().display().to_string()),
    ] {
        command.extend([flag.to_owned(), value]);
    }
    Supervised::start(Program {
        name: "control-plane".into(),
        enter: Enter {
            netns: mesh.lan_netns(),
            privilege: Privilege::All,
            dies_with_parent: true,
            ..Enter::default()
        },
        command,
        log: mesh.log("control-plane"),
    })
}

/// Waits until the control plane has written its kubeconfig.
pub(crate) async fn wait_for_kubeconfig(mesh: &Mesh) -> anyhow::Result<()> {
    let path = mesh.directory().join("control-plane/kubeconfig");
    let written = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(READY, written)
        .await
        .with_context(|| failed(mesh, "has not started"))
}

/// Waits until the control plane is ready.
pub(crate) async fn wait_until_ready(mesh: &Mesh) -> anyhow::Result<()> {
    let mut waits_for = String::new();
    let ready = async {
        loop {
            match probe(mesh).await {
                Ok((200, _)) => return,
                Ok((_, body)) => waits_for = format!(": it waits for {}", body.trim()),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(READY, ready).await;
    in_time.with_context(|| failed(mesh, &format!("is not ready{waits_for}")))
}

fn failed(mesh: &Mesh, what: &str) -> String {
    format!(
        "the control plane {what}: see {}",
        mesh.log("control-plane").display()
    )
}

async fn probe(mesh: &Mesh) -> anyhow::Result<(u16, String)> {
    let stream =
        network::connect_in(&mesh.lan_netns(), IpAddr::V4(LAN_V4), port::CONTROL_PLANE_METRICS).await?;
    ask::get(stream, "/healthz/ready").await
}

/// Writes the kubeconfig of this machine's users, through the loopback forwarder.
pub(crate) fn write_user_kubeconfig(mesh: &Mesh, forwarder: u16) -> anyhow::Result<()> {
    let mut config = admin_kubeconfig(mesh)?;
    set_server(&mut config, &format!("https://127.0.0.1:{forwarder}"))?;
    objects::write_private(&mesh.kubeconfig(), &serde_json::to_string_pretty(&config)?, 0)
}

/// Writes a kubeconfig that shows `token` from within the mesh's network.
pub(crate) fn write_token_kubeconfig(mesh: &Mesh, token: &Path, path: &Path) -> anyhow::Result<()> {
    let mut config = admin_kubeconfig(mesh)?;
    set_server(&mut config, &format!("https://{LAN_V4}:{API_PORT}"))?;
    let users = config
        .pointer_mut("/users")
        .and_then(Value::as_array_mut)
        .context("no users in the kubeconfig")?;
    for user in users {
        user["user"] = json!({ "tokenFile": token });
    }
    objects::write_private(path, &serde_json::to_string_pretty(&config)?, 0)
}

fn admin_kubeconfig(mesh: &Mesh) -> anyhow::Result<Value> {
    let path = mesh.directory().join("control-plane/kubeconfig");
    Ok(serde_json::to_value(Kubeconfig::read_from(path)?)?)
}

fn set_server(config: &mut Value, server: &str) -> anyhow::Result<()> {
    let clusters = config.pointer_mut("/clusters").and_then(Value::as_array_mut);
    for cluster in clusters.context("no clusters in the kubeconfig")? {
        cluster["cluster"]["server"] = json!(server);
    }
    Ok(())
}

/// Writes the root file, as soon as there is a root.
pub(crate) async fn write_root(mesh: &Mesh, client: &Client) -> anyhow::Result<()> {
    let root = objects::root_certificate(client).await?;
    let path = mesh.root_certificate();
    if fs::read_to_string(&path).is_ok_and(|held| held == root) {
        return Ok(());
    }
    objects::write_private(&path, &root, 0)?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?)
}
