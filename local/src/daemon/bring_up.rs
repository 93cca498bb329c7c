//! From nothing to a mesh, and back: the order in which the parts of a mesh on this machine come and go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use trefoil_api::names::{MESH_CONFIG, MESH_NAMESPACE};

use super::{Daemon, Options, locked, serve};
use crate::api;
use crate::mesh::{Mesh, Node};
use crate::services::controller::Controller;
use crate::sidecar::Proxy;
use crate::{control_plane, down, forward, network, node, objects, pod, waypoints};

/// Brings a mesh up, serves until asked to end, and takes it down.
pub async fn run(mesh: Mesh, options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let asked = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ended = tokio::select! {
        ended = live(mesh.clone(), options) => ended,
        () = asked => Ok(()),
    };
    down::remove(&mesh).await?;
    ended
}

async fn live(mesh: Mesh, options: Options) -> anyhow::Result<()> {
    down::remove(&mesh)
        .await
        .context("removing what an earlier mesh left")?;
    make_directories(&mesh, options.nodes)?;
    fs::write(mesh.pid_file(), std::process::id().to_string())?;
    let nodes: Vec<Node> = (1..=options.nodes).map(Node).collect();
    network::make_lan(&mesh, &nodes).await?;
    let control_plane = control_plane::start(&mesh)?;
    let forwarder = forward::start(&mesh).await?;
    control_plane::wait_for_kubeconfig(&mesh).await?;
    control_plane::write_user_kubeconfig(&mesh, forwarder)?;
    control_plane::wait_until_ready(&mesh).await?;

    let client = api::client(&mesh.kubeconfig()).await?;
    let daemon = Arc::new(Daemon::new(mesh.clone(), options, client.clone()));
    locked(&daemon.processes).push(control_plane);
    make_objects(&daemon).await?;
    control_plane::write_root(&mesh, &client).await?;
    let started = futures::future::try_join_all(nodes.iter().map(|node| node::start(&daemon, *node))).await?;
    locked(&daemon.processes).extend(started.into_iter().flatten());
    wait_for_agents(&daemon).await?;

    let controller = Controller::new(mesh.clone(), nodes, client, daemon.services.clone());
    tokio::spawn(controller.run(daemon.changed.clone()));
    tokio::spawn(keep_fresh(daemon.clone()));
    tokio::spawn(serve::watch_pods(daemon.clone()));
    tokio::spawn(waypoints::keep(daemon.clone()));
    let listener = UnixListener::bind(mesh.socket()).context("listening on the control socket")?;
    fs::set_permissions(mesh.socket(), fs::Permissions::from_mode(0o600))?;
    serve::run(daemon.clone(), listener).await;
    end(&daemon).await;
    Ok(())
}

fn make_directories(mesh: &Mesh, nodes: u8) -> anyhow::Result<()> {
    let directory = mesh.directory();
    fs::create_dir_all(pod::ROOT_MOUNT).with_context(|| format!("making {}", pod::ROOT_MOUNT))?;
    for name in ["bin", "logs", "root", "store", "control-plane", "pods"] {
        fs::create_dir_all(directory.join(name))?;
    }
    for node in (1..=nodes).map(Node) {
        fs::create_dir_all(mesh.node_directory(node))?;
    }
    // What the program itself is mounted upon.
    for proxy in [Proxy::Sidecar, Proxy::Waypoint] {
        fs::write(mesh.program(proxy.binary()), [])?;
    }
    // Sidecars and workers pass through; nobody else lists what is here.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o711))?;
    fs::set_permissions(directory.join("store"), fs::Permissions::from_mode(0o700))?;
    Ok(fs::set_permissions(
        directory.join("control-plane"),
        fs::Permissions::from_mode(0o700),
    )?)
}

async fn make_objects(daemon: &Daemon) -> anyhow::Result<()> {
    let client = &daemon.client;
    for namespace in [MESH_NAMESPACE, "default", "kube-system"] {
        objects::create_namespace(client, namespace, None).await?;
    }
    for node in &daemon.nodes {
        objects::create_node(client, *node).await?;
    }
    if let Some(lifetime) = &daemon.options.certificate_lifetime {
        let api = Api::<ConfigMap>::namespaced(client.clone(), MESH_NAMESPACE);
        let data = json!({ "mesh.yaml": format!("certificateLifetime: {lifetime}\n") });
        let object: ConfigMap = serde_json::from_value(json!({
            "metadata": { "name": MESH_CONFIG, "namespace": MESH_NAMESPACE }, "data": data,
        }))?;
        if !objects::create(&api, &object).await? {
            let patch = Patch::Merge(json!({ "data": data }));
            api.patch(MESH_CONFIG, &PatchParams::default(), &patch).await?;
        }
    }
    Ok(())
}

/// A pod can be made once the agents answer the CNI plugin.
async fn wait_for_agents(daemon: &Daemon) -> anyhow::Result<()> {
    for node in &daemon.nodes {
        let socket = daemon.mesh.node_directory(*node).join("cni.sock");
        let answers = async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let name = format!("{}-agent", node.name());
        tokio::time::timeout(Duration::from_secs(20), answers)
            .await
            .with_context(|| {
                format!(
                    "the agent has not started: see {}",
                    daemon.mesh.log(&name).display()
                )
            })?;
    }
    Ok(())
}

/// Keeps tokens and the root file fresh.
async fn keep_fresh(daemon: Arc<Daemon>) {
    let mut renewal = tokio::time::interval(Duration::from_secs(objects::TOKEN_SECONDS.unsigned_abs() / 3));
    let mut root = tokio::time::interval(Duration::from_secs(5));
    renewal.tick().await;
    loop {
        tokio::select! {
            _ = renewal.tick() => {
                let files = locked(&daemon.tokens).clone();
                for file in files {
                    if let Err(error) = daemon.write_token(&file).await {
                        tracing::warn!("renewing a token: {error:#}");
                    }
                }
            }
            _ = root.tick() => {
                if let Err(error) = control_plane::write_root(&daemon.mesh, &daemon.client).await {
                    tracing::warn!("renewing the root file: {error:#}");
                }
            }
        }
    }
}

/// Ends pods first, then what carries their traffic, then the control plane.
async fn end(daemon: &Daemon) {
    let pods = daemon.pods();
    futures::future::join_all(pods.iter().map(|entry| async {
        entry.stop.cancel();
        entry.gone.cancelled().await;
    }))
    .await;
    let mut processes = std::mem::take(&mut *locked(&daemon.processes));
    processes.reverse();
    let control_plane = processes.pop();
    futures::future::join_all(processes.into_iter().map(super::Supervised::stop)).await;
    if let Some(process) = control_plane {
        process.stop().await;
    }
    // Whoever asked sees the mesh gone only when it is.
    let _ = fs::remove_file(Path::new(&daemon.mesh.socket()));
}
