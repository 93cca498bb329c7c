//! The mesh's processes on one node: the agent and the node proxy, each with a pod and a token of its own.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::control_plane;
use super::daemon::{Daemon, TokenFile, TokenKind};
use super::enter::{Enter, Privilege};
use super::mesh::{NETNS_ROOT, Node};
use super::objects::{self, TokenOwner};
use super::process::{Program, Supervised};
use trefoil_api::names::MESH_NAMESPACE;

/// Starts a node's agent and node proxy.
pub(crate) async fn start(daemon: &Daemon, node: Node) -> anyhow::Result<Vec<Supervised>> {
    let started = async {
        let agent = start_agent(daemon, node).await?;
        let proxy = start_proxy(daemon, node).await?;
        anyhow::Ok(vec![agent, proxy])
    };
    started
        .await
        .with_context(|| format!("starting the mesh's processes of node {}", node.name()))
}

async fn start_agent(daemon: &Daemon, node: Node) -> anyhow::Result<Supervised> {
    let directory = daemon.mesh.node_directory(node).join("agent");
    let owner = prepare(daemon, node, "trefoil-cni", &directory).await?;
    let token = directory.join("api-token");
    let file = TokenFile {
        owner,
        path: token.clone(),
        user: 0,
        kind: TokenKind::Api,
    };
    daemon.keep_token(file).await?;
    let kubeconfig = directory.join("kubeconfig");
    control_plane::write_token_kubeconfig(&daemon.mesh, &token, &kubeconfig)?;
    let host = Path::new(NETNS_ROOT).join(daemon.mesh.node_netns(node));
    let arguments = [
        ("--kubeconfig", kubeconfig.display().to_string()),
        ("--node-proxy-parent", std::process::id().to_string()),
        ("--host-netns", host.display().to_string()),
    ];
    spawn(daemon, node, "trefoil-cni", "agent", &directory, &arguments)
}

async fn start_proxy(daemon: &Daemon, node: Node) -> anyhow::Result<Supervised> {
    let directory = daemon.mesh.node_directory(node).join("node");
    prepare(daemon, node, "trefoil-node", &directory).await?;
    let isolation = daemon.options.isolation.clone();
    let arguments: Vec<_> = isolation
        .into_iter()
        .map(|isolation| ("--isolation", isolation))
        .collect();
    spawn(daemon, node, "trefoil-node", "run", &directory, &arguments)
}

/// The pod and the token of a process.
async fn prepare(daemon: &Daemon, node: Node, account: &str, directory: &Path) -> anyhow::Result<TokenOwner> {
    fs::create_dir_all(directory)?;
    let pod = format!("{account}-{}", node.name());
    let uid = objects::create_mesh_pod(&daemon.client, &pod, account, node).await?;
    let owner = TokenOwner {
        namespace: MESH_NAMESPACE.into(),
        account: account.into(),
        pod,
        uid,
    };
    let path = directory.join("token");
    let file = TokenFile {
        owner: owner.clone(),
        path,
        user: 0,
        kind: TokenKind::ControlPlane,
    };
    daemon.keep_token(file).await?;
    Ok(owner)
}

fn spawn(
    daemon: &Daemon,
    node: Node,
    binary: &str,
    subcommand: &str,
    directory: &Path,
    arguments: &[(&str, String)],
) -> anyhow::Result<Supervised> {
    let shown = |path: &Path| path.display().to_string();
    let mut command = vec![super::binary(binary)?, subcommand.to_owned()];
    let shared = [
        ("--node", node.name()),
        ("--control-plane", control_plane::url()),
        ("--token", shown(&directory.join("token"))),
        ("--root-cert", shown(&daemon.mesh.root_certificate())),
        ("--run-dir", shown(&daemon.mesh.node_directory(node))),
        ("--state-dir", shown(directory)),
        ("--admin-socket", shown(&directory.join("admin.sock"))),
        ("--drain-deadline", "3".to_owned()),
    ];
    for (flag, value) in shared.iter().chain(arguments) {
        command.extend([(*flag).to_owned(), value.clone()]);
    }
    let role = if subcommand == "agent" { "agent" } else { "node" };
    let name = format!("{}-{role}", node.name());
    Supervised::start(Program {
        log: daemon.mesh.log(&name),
        name,
        enter: Enter {
            netns: daemon.mesh.node_netns(node),
            privilege: Privilege::All,
            dies_with_parent: true,
            ..Enter::default()
        },
        command,
    })
}
