//! The switch: a namespace changes plane ten times and back under load, in STRICT mode, and nobody notices
//! but the kernel: no connection refused or reset, long-lived ones survive, new ones are on the new plane
//! within two seconds, no plaintext on the wire or let in. One story, told over both kinds of mesh.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::capture::{Capture, Captured};
use crate::mesh::eventually;
use crate::mesh::standard::{NODES, Standard};
use crate::programs::load::Tally;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

use arrivals::{End, PLANES, Plane, Watched, look, settled};

mod arrivals;
mod embedded;

/// How often the namespace leaves its plane and comes back.
const TIMES: usize = 10;
/// Until new connections are on the new plane.
const PROMISED: Duration = Duration::from_secs(2);
/// Attempts a second of each load.
const RATE: &str = "25";
/// The fewest attempts that each load must have made.
const ATTEMPTS: u64 = 500;
/// How long a load may run, in seconds.
const LIMIT: &str = "240";

/// A mesh with clients on its first node and servers on both, in namespaces named after their modes. The
/// namespace `sidecar` is the one that switches.
pub(super) trait Ground {
    /// The network namespace that everything between nodes passes.
    fn between_nodes(&self) -> String;
    /// Creates objects.
    async fn create(&self, objects: &str) -> anyhow::Result<()>;
    /// Asks that the namespace be in a mode.
    async fn label(&self, mode: &str) -> anyhow::Result<()>;
    /// What the agents say redirects the namespace's servers.
    async fn redirections(&self) -> anyhow::Result<Vec<String>>;
    /// A process in the network namespace of a client.
    async fn client(&self, namespace: &str) -> anyhow::Result<u32>;
    /// A process in the network namespace of the switching namespace's server on a node.
    async fn server(&self, node: &str) -> anyhow::Result<u32>;
    /// A file that a client can look for: its path there, and from here.
    async fn flag(&self, client: &str) -> anyhow::Result<(String, PathBuf)>;
    /// Runs a load from a client to a server, to its end.
    async fn load(&self, route: &Route, arguments: &[&str]) -> anyhow::Result<Tally>;
}

/// From which client to which server.
pub(super) struct Route {
    pub(super) client: &'static str,
    pub(super) server: &'static str,
    pub(super) node: &'static str,
    /// What is spoken. Connections of bytes have one each to the server's application, those of requests may share one.
    pub(super) protocol: Protocol,
}

impl Route {
    /// The server's port.
    pub(super) fn port(&self) -> u16 {
        match self.protocol {
            Protocol::Tcp => port::TCP,
            _ => port::HTTP,
        }
    }
}

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("switch"), &[]).await?;
    back_and_forth(&standard, report).await?;
    standard.mesh.down().await
}

/// The story: what switches is at once the clients' namespace and the servers'.
pub(super) async fn back_and_forth(ground: &impl Ground, report: &mut Report) -> anyhow::Result<()> {
    strict(ground).await?;
    let mut flags = Vec::new();
    for client in ["none", "sidecar", "ambient"] {
        flags.push((client, ground.flag(client).await?));
    }
    let until = |client: &str| {
        let flag = flags.iter().find(|(of, _)| *of == client);
        flag.map(|(_, (there, _))| there.as_str()).unwrap_or_default()
    };
    let mut loads = Vec::new();
    for (client, server) in [("ambient", "sidecar"), ("sidecar", "ambient")] {
        for node in NODES {
            for connections in ["0", "20"] {
                let route = Route {
                    client,
                    server,
                    node,
                    protocol: Protocol::H1,
                };
                loads.push(load(ground, route, connections, until(client)));
            }
        }
    }
    for node in NODES {
        let (client, server) = ("ambient", "sidecar");
        let route = Route {
            client,
            server,
            node,
            protocol: Protocol::Tcp,
        };
        loads.push(load(ground, route, "0", until(client)));
    }
    let stranger = Route {
        client: "none",
        server: "sidecar",
        node: "n1",
        protocol: Protocol::H1,
    };
    let stranger = load(ground, stranger, "0", until("none"));
    let mut pods = watched(ground).await?;
    let capture = Capture::start(&ground.between_nodes()).await?;
    let switching = async {
        let slowest = switch(ground, &mut pods).await;
        for (_, (_, here)) in &flags {
            std::fs::write(here, "").with_context(|| here.display().to_string())?;
        }
        slowest
    };
    let loads = futures::future::join_all(loads);
    let (loads, (_, stranger), slowest) = tokio::join!(loads, stranger, switching);
    let captured = capture.stop().await?;
    for (_, (_, here)) in &flags {
        std::fs::remove_file(here)?;
    }
    on_the_new_plane(report, &pods, slowest);
    for (name, tally) in loads {
        report.check(
            format!("the switch, {name}"),
            tally.and_then(|tally| unharmed(&tally)),
        );
    }
    report.check(
        "the switch, a stranger's plaintext",
        stranger.and_then(|tally| kept_out(&tally)),
    );
    report.check("the switch, on the wire", encrypted(captured));
    Ok(())
}

/// Nothing but the mesh is let in, so that a moment without it would show.
async fn strict(ground: &impl Ground) -> anyhow::Result<()> {
    for namespace in ["sidecar", "ambient"] {
        let strict = format!(
            "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
             metadata: {{name: strict, namespace: {namespace}}}\nspec: {{mtls: Strict}}\n"
        );
        ground.create(&strict).await?;
    }
    let stranger = Route {
        client: "none",
        server: "sidecar",
        node: "n1",
        protocol: Protocol::H1,
    };
    eventually(Duration::from_secs(20), async || {
        let tally = ground
            .load(&stranger, &["--rate", "10", "--seconds", "0.5"])
            .await?;
        ensure!(tally.served == 0 && tally.attempted > 0, "STRICT lets in {tally}");
        Ok(())
    })
    .await
}

/// The pods by which a switch is seen: the servers of the namespace, and its client.
async fn watched(ground: &impl Ground) -> anyhow::Result<Vec<Watched>> {
    let mut pods = Vec::new();
    for (name, end, process) in [
        ("server on n1", End::Server, ground.server("n1").await?),
        ("server on n2", End::Server, ground.server("n2").await?),
        ("client on n1", End::Client, ground.client("sidecar").await?),
    ] {
        pods.push(Watched {
            name,
            end,
            process,
            seen: [].into(),
        });
    }
    Ok(pods)
}

/// One load to its end; what it is called.
async fn load(
    ground: &impl Ground,
    route: Route,
    connections: &str,
    until: &str,
) -> (String, anyhow::Result<Tally>) {
    let kind = match (connections, route.protocol) {
        ("0", Protocol::Tcp) => "a connection of bytes each",
        ("0", _) => "a connection each",
        _ => "long-lived connections",
    };
    let place = if route.node == "n1" {
        "same node"
    } else {
        "other node"
    };
    let name = format!("{} → {}, {kind}, {place}", route.client, route.server);
    let protocol = route.protocol.to_string();
    let arguments = [
        "--protocol",
        &protocol,
        "--rate",
        RATE,
        "--seconds",
        LIMIT,
        "--connections",
        connections,
        // For long enough to be seen.
        "--hold",
        "0.5",
        "--until",
        until,
    ];
    (name, ground.load(&route, &arguments).await)
}

/// For each pod the longest that its new connections took to be on the new plane.
async fn switch(ground: &impl Ground, pods: &mut [Watched]) -> anyhow::Result<Vec<Duration>> {
    let mut slowest = vec![Duration::ZERO; pods.len()];
    // The load is carried by the plane that it begins on.
    let begun = Instant::now();
    settled(pods, &PLANES[1], begun).await?;
    for _ in 0..TIMES {
        for plane in &PLANES {
            let took = one_switch(ground, pods, plane).await?;
            for (slowest, took) in slowest.iter_mut().zip(took) {
                *slowest = took.max(*slowest);
            }
        }
    }
    Ok(slowest)
}

async fn one_switch(
    ground: &impl Ground,
    pods: &mut [Watched],
    plane: &Plane,
) -> anyhow::Result<Vec<Duration>> {
    look(pods)?;
    let begun = Instant::now();
    ground.label(plane.mode).await?;
    let took = settled(pods, plane, begun).await?;
    // What people are told agrees.
    eventually(Duration::from_secs(20), async || {
        let said = ground.redirections().await?;
        ensure!(
            said.len() >= NODES.len() && said.iter().all(|name| name == plane.name),
            "they are said to be on {said:?}, not all on {}",
            plane.name
        );
        Ok(())
    })
    .await?;
    Ok(took)
}

fn on_the_new_plane(report: &mut Report, pods: &[Watched], slowest: anyhow::Result<Vec<Duration>>) {
    let slowest = match slowest {
        Ok(slowest) => slowest,
        Err(error) => {
            report.check("the switch, there and back", Err::<&str, _>(error));
            return;
        }
    };
    for (pod, slowest) in pods.iter().zip(slowest) {
        let seen = format!(
            "{} switches; every new connection is on the new plane after at most {} ms ({} seen)",
            2 * TIMES,
            slowest.as_millis(),
            pod.seen.len()
        );
        let result = if slowest <= PROMISED {
            Ok(seen)
        } else {
            Err(anyhow::anyhow!(seen))
        };
        report.check(format!("the switch, {}", pod.name), result);
    }
}

/// Nothing refused, reset, closed or late, and the load was no trickle.
fn unharmed(tally: &Tally) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= ATTEMPTS,
        "only {} attempts were made",
        tally.attempted
    );
    ensure!(tally.lost() == 0 && tally.connections_lost == 0, "{tally}");
    Ok(tally.to_string())
}

/// Nobody outside the mesh was let in at any moment.
fn kept_out(tally: &Tally) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= ATTEMPTS,
        "only {} attempts were made",
        tally.attempted
    );
    ensure!(tally.served == 0, "{tally}");
    Ok(format!("none of {} attempts let in", tally.attempted))
}

fn encrypted(captured: Captured) -> anyhow::Result<String> {
    ensure!(
        captured.plaintext == 0 && captured.tunnelled >= 1000,
        "{captured:?}"
    );
    Ok(format!(
        "{} packets of tunnels, no plaintext marker",
        captured.tunnelled
    ))
}
