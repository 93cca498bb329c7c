//! The switch: a namespace changes plane ten times and back under load, in STRICT mode, and nobody notices
//! but the kernel: no connection refused or reset, long-lived ones survive, new ones are on the new plane
//! within two seconds, no plaintext on the wire.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::capture::Capture;
use crate::mesh::Pod;
use crate::mesh::standard::{NODES, Standard};
use crate::programs::load::Tally;
use crate::programs::port;
use crate::report::Report;

mod witness;

use witness::{End, Plane, carried_by};

/// How often the namespace leaves its plane and comes back.
const TIMES: usize = 10;
/// Until new connections are on the new plane.
const PROMISED: Duration = Duration::from_secs(2);
/// How long the namespace stays on each plane.
const STAY: Duration = Duration::from_secs(1);
/// Attempts a second of each load.
const RATE: &str = "50";

/// The mode that asks for a plane, and the plane.
const PLANES: [(&str, Plane); 2] = [
    (
        "ambient",
        Plane {
            program: "trefoil-node",
            outbound: 15001,
        },
    ),
    (
        "sidecar",
        Plane {
            program: "trefoil-sidecar",
            outbound: 15101,
        },
    ),
];

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("switch"), &[]).await?;
    strict(&standard).await?;
    for (role, client, server) in [
        ("the servers'", "ambient", "sidecar"),
        ("the clients'", "sidecar", "ambient"),
    ] {
        under_load(&standard, report, role, client, server).await?;
    }
    standard.mesh.down().await
}

/// Nothing but the mesh is let in, so that a moment without it would show.
async fn strict(standard: &Standard) -> anyhow::Result<()> {
    for namespace in ["sidecar", "ambient"] {
        standard
            .mesh
            .apply(&format!(
                "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
                 metadata: {{name: strict, namespace: {namespace}}}\nspec: {{mtls: Strict}}\n"
            ))
            .await?;
    }
    Ok(())
}

/// One direction: the namespace `sidecar` switches, as client or as server.
async fn under_load(
    standard: &Standard,
    report: &mut Report,
    role: &str,
    client: &str,
    server: &str,
) -> anyhow::Result<()> {
    let from = standard.client(client)?;
    let flag = tempfile::tempdir()?;
    let flag = flag.path().join("enough");
    let until = flag.to_string_lossy().into_owned();
    let capture = Capture::start(&standard.mesh.lan()).await?;
    let mut loads = Vec::new();
    for node in NODES {
        let target = standard.server(server, node)?.at(port::HTTP).to_string();
        for connections in ["0", "20"] {
            loads.push((
                node,
                connections,
                load(standard, from, target.clone(), connections, &until),
            ));
        }
    }
    let (names, loads): (Vec<_>, Vec<_>) = loads
        .into_iter()
        .map(|(node, connections, load)| ((node, connections), load))
        .unzip();
    let switching = async {
        let end = if server == "sidecar" {
            End::Server
        } else {
            End::Client
        };
        let switched = switch_back_and_forth(standard, end).await;
        std::fs::write(&flag, "")?;
        switched
    };
    let (tallies, switched) = tokio::join!(futures::future::join_all(loads), switching);
    let captured = capture.stop().await?;
    report.check(
        format!("{role} namespace switches {TIMES} times and back"),
        switched.map(|(seen, slowest)| {
            format!(
                "{seen} of {seen} fresh connections carried by the new plane's process after at most {} ms",
                slowest.as_millis()
            )
        }),
    );
    for ((node, connections), tally) in names.into_iter().zip(tallies) {
        let kind = if connections == "0" {
            "a connection each"
        } else {
            "long-lived connections"
        };
        let place = if node == "n1" { "same node" } else { "other node" };
        report.check(
            format!("{role} switch, {kind}, {place}"),
            tally.and_then(|tally| unharmed(&tally)),
        );
    }
    let plaintext = if captured.plaintext == 0 && captured.tunnelled > 100 {
        Ok(format!(
            "{} packets of tunnels, no plaintext marker",
            captured.tunnelled
        ))
    } else {
        Err(anyhow::anyhow!("{captured:?}"))
    };
    report.check(format!("{role} switch, on the wire"), plaintext);
    Ok(())
}

async fn load(
    standard: &Standard,
    from: &Pod,
    target: String,
    connections: &str,
    until: &str,
) -> anyhow::Result<Tally> {
    let program = standard.mesh.program()?;
    let command = [
        &program,
        "load",
        "--target",
        &target,
        "--rate",
        RATE,
        "--seconds",
        "240",
        "--connections",
        connections,
        "--until",
        until,
    ];
    let limit = Duration::from_secs(300);
    let output = standard.mesh.exec_within(from, &command, limit).await?;
    Ok(serde_json::from_str(&output)?)
}

/// Nothing refused, reset, closed or late, and the load was no trickle.
fn unharmed(tally: &Tally) -> anyhow::Result<String> {
    ensure!(
        tally.attempted >= 500,
        "only {} attempts were made",
        tally.attempted
    );
    ensure!(tally.lost() == 0 && tally.connections_lost == 0, "{tally}");
    Ok(tally.to_string())
}

/// The longest that fresh connections took to be carried by the new plane's process. Asked of the kernel, in
/// every round trip: on both nodes where the servers switch, and of the client where that does.
async fn switch_back_and_forth(standard: &Standard, end: End) -> anyhow::Result<(usize, Duration)> {
    let (mut slowest, mut seen) = (Duration::ZERO, 0);
    let client = standard.client(if end == End::Client { "sidecar" } else { "ambient" })?;
    let servers = if end == End::Client { "ambient" } else { "sidecar" };
    for _ in 0..TIMES {
        for (mode, plane) in PLANES {
            let begun = Instant::now();
            standard.mesh.label_namespace("sidecar", mode).await?;
            let carried = NODES.map(async |node| {
                let server = standard.server(servers, node)?;
                carried_by(&standard.mesh, (client, server), end, plane, begun).await
            });
            for took in futures::future::try_join_all(carried).await? {
                slowest = slowest.max(took);
                seen += 1;
            }
            // The load is to be carried by each plane, not only across the seams.
            tokio::time::sleep(STAY).await;
        }
    }
    ensure!(
        slowest <= PROMISED,
        "a fresh connection took {} ms to be on the new plane",
        slowest.as_millis()
    );
    Ok((seen, slowest))
}
