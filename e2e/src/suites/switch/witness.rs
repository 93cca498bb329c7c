//! Who carries a fresh connection, by the kernel's word alone: the process that has the socket which the mesh
//! opened or accepted for it. Neither the agent nor a plane is asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::kernel::{answered_in, established, owners};
use crate::mesh::{Mesh, Pod, eventually};
use crate::programs::port;

/// How long is waited for what is promised sooner.
const LIMIT: Duration = Duration::from_secs(20);

/// Which end of a connection is to be carried by the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client's, whose dialling is captured.
    Client,
    /// The server's, whose application is connected to.
    Server,
}

/// A plane, as the kernel knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    /// Its program.
    pub(super) program: &'static str,
    /// Where it takes what a pod dials.
    pub(super) outbound: u16,
}

/// How long after `begun` a fresh connection was carried by this plane's process at that end.
pub(super) async fn carried_by(
    mesh: &Mesh,
    (client, server): (&Pod, &Pod),
    end: End,
    plane: Plane,
    begun: Instant,
) -> anyhow::Result<Duration> {
    eventually(LIMIT, async || {
        let owners = match end {
            End::Client => at_client(mesh, client, server, plane.outbound).await?,
            End::Server => at_server(mesh, client, server).await?,
        };
        ensure!(
            owners == [plane.program],
            "at {} a fresh connection is carried by {owners:?}, not by {}",
            if end == End::Client {
                &client.name
            } else {
                &server.name
            },
            plane.program
        );
        Ok(begun.elapsed())
    })
    .await
}

/// The owners of the socket that took what the client dialled, at the port of the plane.
async fn at_client(mesh: &Mesh, client: &Pod, server: &Pod, listener: u16) -> anyhow::Result<Vec<String>> {
    let stream = answered_in(&mesh.netns(client), server.at(port::TCP)).await?;
    let source = stream.local_addr()?.port();
    let filter = format!("( sport = :{listener} and dport = :{source} )");
    let accepted = established(&mesh.netns(client), &filter).await?;
    let accepted = accepted
        .first()
        .with_context(|| format!("port {listener} of {} did not take it", client.name))?;
    owners(accepted.inode)
}

/// The owners of the socket that was opened to the server's application. Nothing else dials its port.
async fn at_server(mesh: &Mesh, client: &Pod, server: &Pod) -> anyhow::Result<Vec<String>> {
    let netns = mesh.netns(server);
    let filter = format!("( dport = :{} )", port::TCP);
    let before: BTreeSet<u64> = inodes(&netns, &filter).await?;
    let _stream = answered_in(&mesh.netns(client), server.at(port::TCP)).await?;
    let after = inodes(&netns, &filter).await?;
    let opened: Vec<u64> = after.difference(&before).copied().collect();
    let [opened] = opened[..] else {
        anyhow::bail!("{} sockets were opened to the application, not one", opened.len())
    };
    owners(opened)
}

async fn inodes(netns: &str, filter: &str) -> anyhow::Result<BTreeSet<u64>> {
    let sockets = established(netns, filter).await?;
    Ok(sockets.iter().map(|socket| socket.inode).collect())
}
