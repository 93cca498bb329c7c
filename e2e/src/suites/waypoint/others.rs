//! Programs of others through a waypoint: what it reads and writes anew must be what they sent.

mod hints;
mod web;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{GUARDED, until_printed, waypoints};
use crate::mesh::PodPlan;
use crate::mesh::standard::Standard;
use crate::report::Report;

/// gRPC's own interoperability cases: its four kinds of call, and how they end.
const CASES: [&str; 12] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
];
/// Clients in either plane.
const CLIENTS: [&str; 2] = ["sidecar", "ambient"];

const ECHO_SERVER: &str = "
import asyncio, websockets
async def echo(socket):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, None, 8765, max_size=None):
        await asyncio.Future()
asyncio.run(main())
";
/// Node's own WebSocket, which is that of browsers.
const ECHO_CLIENT: &str = "
const socket = new WebSocket(process.argv[1]);
socket.binaryType = 'arraybuffer';
const messages = ['hello', crypto.getRandomValues(new Uint8Array(1 << 16)), 'x'.repeat(1 << 20)];
for (let number = 0; number < 100; number++) messages.push(String(number));
const same = (one, other) => typeof one === 'string' ? one === other : Buffer.compare(Buffer.from(one), Buffer.from(other)) === 0;
let at = 0;
socket.onopen = () => socket.send(messages[at]);
socket.onmessage = ({ data }) => {
    if (!same(messages[at], data)) throw new Error('message ' + at + ' came back as another');
    at += 1;
    at < messages.length ? socket.send(messages[at]) : socket.close(1000);
};
socket.onerror = (event) => { console.error(event.message); process.exit(1); };
socket.onclose = ({ code }) => console.log('closed', code, at);
";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let peers = peers();
    let site = web::serve(standard, files.path()).await?;
    for server in GUARDED {
        serve(standard, server, peers.as_deref().ok()).await?;
    }
    for client in CLIENTS {
        for server in GUARDED {
            let called = match &peers {
                Ok(peers) => grpc(standard, client, server, peers).await,
                Err(absent) => Err(anyhow::anyhow!("{absent}")),
            };
            report.check(
                format!("{client} → {server}: gRPC's interoperability cases"),
                called,
            );
            let talked = match &peers {
                Ok(peers) => websocket(standard, client, server, peers).await,
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            report.check(format!("{client} → {server}: WebSocket"), talked);
            hints::run(standard, report, client, server).await;
        }
        web::run(standard, report, client, &site).await;
    }
    for (namespace, services) in [
        ("sidecar", &["interop", "echo", "hints1", "hints2"][..]),
        (
            "ambient",
            &[
                "interop", "echo", "hints1", "hints2", "nginx", "nginx2", "hostile",
            ],
        ),
    ] {
        let read = read(standard, namespace, services).await;
        report.check(format!("all of it was read by the waypoint of {namespace}"), read);
    }
    Ok(())
}

/// Where programs of others were built to.
fn peers() -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("PEERS").unwrap_or_default());
    ensure!(
        folder.join("grpc-client").exists(),
        "PEERS names no folder with grpc-client"
    );
    Ok(folder)
}

/// gRPC's own server, one of WebSockets, and Node's, in a namespace.
async fn serve(standard: &Standard, namespace: &str, peers: Option<&Path>) -> anyhow::Result<()> {
    let echo = ["/usr/bin/python3", "-c", ECHO_SERVER];
    pod(standard, namespace, "echo", (80, 8765), &echo).await?;
    if let Some(peers) = peers {
        let server = peers.join("grpc-server");
        let server = [server.to_str().context("a path")?, "-port", "10000"];
        pod(standard, namespace, "interop", (10000, 10000), &server).await?;
        hints::serve(standard, namespace, peers).await?;
    }
    Ok(())
}

/// A pod behind a service of its name, which listens once this returns.
async fn pod(
    standard: &Standard,
    namespace: &str,
    name: &str,
    (port, target): (u16, u16),
    command: &[&str],
) -> anyhow::Result<()> {
    let plan = PodPlan {
        namespace: namespace.into(),
        name: name.into(),
        node: "n2".into(),
        account: name.into(),
        labels: vec![format!("app={name}")],
        ports: vec![target],
        services: vec![format!("{name}:{port}:{target}")],
        ..PodPlan::default()
    };
    standard.mesh.run(&plan, command).await.map(drop)
}

/// What the waypoint itself has counted: whoever went past it would not show elsewhere.
async fn read(standard: &Standard, namespace: &str, services: &[&str]) -> anyhow::Result<String> {
    let pods = waypoints(standard, namespace).await?;
    let pod = pods.first().context("the waypoint has no pod")?;
    let mut counted = Vec::new();
    for service in services {
        let labels = [("reporter", "waypoint"), ("destination_service_name", *service)];
        let requests = standard
            .mesh
            .counted(pod, "istio_requests_total", &labels)
            .await?;
        ensure!(requests > 0.0, "no request to {service}");
        counted.push(format!("{requests} to {service}"));
    }
    Ok(counted.join(", "))
}

async fn grpc(standard: &Standard, client: &str, server: &str, peers: &Path) -> anyhow::Result<String> {
    let program = peers.join("grpc-client");
    let program = program.to_str().context("a path")?;
    let (pod, host) = (standard.client(client)?, format!("interop.{server}"));
    for case in CASES {
        let command = [
            program,
            "--server_host",
            &host,
            "--server_port",
            "10000",
            "--test_case",
            case,
        ];
        let run = standard
            .mesh
            .exec_within(pod, &command, Duration::from_secs(30))
            .await;
        run.with_context(|| format!("case {case}"))?;
    }
    Ok(format!("{} cases", CASES.len()))
}

async fn websocket(standard: &Standard, client: &str, server: &str, peers: &Path) -> anyhow::Result<String> {
    let target = format!("ws://echo.{server}/");
    let node = peers.join("node");
    let command = [node.to_str().context("a path")?, "-e", ECHO_CLIENT, &target];
    let printed = until_printed(standard, client, &command, |printed| printed.contains("closed")).await?;
    ensure!(printed.trim() == "closed 1000 103", "{printed:?}");
    Ok("103 messages there and back, of them one of a megabyte; closed in order".into())
}
