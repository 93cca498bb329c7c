//! Programs of others through a waypoint: what it reads and writes anew must be what they sent.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::until_printed;
use crate::mesh::standard::Standard;
use crate::mesh::{Pod, PodPlan};
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
const ECHO_CLIENT: &str = "
import asyncio, os, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1], max_size=None) as socket:
        for message in ['hello', os.urandom(1 << 20)] + [str(number) for number in range(100)]:
            await socket.send(message)
            assert await socket.recv() == message
    print('closed', socket.close_code)
asyncio.run(main())
";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let served = serve(standard, files.path()).await?;
    for client in CLIENTS {
        match peers() {
            Some(peers) => report.check(
                format!("{client}: gRPC's interoperability cases"),
                grpc(standard, client, &peers).await,
            ),
            None => report.check(
                format!("{client}: gRPC's interoperability cases"),
                Err::<&str, _>(anyhow::anyhow!("PEERS names no folder with grpc-client")),
            ),
        };
        report.check(
            format!("{client}: curl and nginx, 100 MB"),
            curl(standard, client, &served).await,
        );
        report.check(
            format!("{client}: h2load and nginx over HTTP/2"),
            h2load(standard, client).await,
        );
        report.check(format!("{client}: WebSocket"), websocket(standard, client).await);
    }
    Ok(())
}

/// Where programs of others were built to.
fn peers() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("PEERS")?);
    folder.join("grpc-client").exists().then_some(folder)
}

/// What nginx serves.
struct Served {
    sum: String,
    bytes: usize,
}

async fn serve(standard: &Standard, files: &std::path::Path) -> anyhow::Result<Served> {
    let bytes = 100_000_000;
    let content: Vec<u8> = (0..100_000_000_u32)
        .map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(files.join("file"), &content)?;
    let configuration = files.join("nginx.conf");
    let root = files.display();
    let text = format!(
        "daemon off; user root; pid {root}/pid; error_log stderr; events {{}}\n\
         http {{ access_log off; server {{ listen 8000; listen [::]:8000; listen 8001 http2; root {root}; }} }}\n"
    );
    // A port of its own for HTTP/2: in the clear this nginx serves nothing else there.
    std::fs::write(&configuration, text)?;
    let configuration = configuration.to_str().context("a path")?;
    for (name, port) in [("nginx", 8000), ("nginx2", 8001)] {
        let service = format!("{name}:80:{port}");
        pod(standard, name, &[&service], &["nginx", "-c", configuration]).await?;
    }
    pod(
        standard,
        "echo",
        &["echo:80:8765"],
        &["/usr/bin/python3", "-c", ECHO_SERVER],
    )
    .await?;
    if let Some(peers) = peers() {
        let server = peers.join("grpc-server");
        let server = server.to_str().context("a path")?;
        pod(
            standard,
            "interop",
            &["interop:10000:10000"],
            &[server, "-port", "10000"],
        )
        .await?;
    }
    let sum = tokio::process::Command::new("sha256sum")
        .arg(files.join("file"))
        .output()
        .await?;
    let sum = String::from_utf8(sum.stdout)?;
    Ok(Served {
        sum: sum.split_whitespace().next().context("a checksum")?.to_owned(),
        bytes,
    })
}

async fn pod(standard: &Standard, name: &str, services: &[&str], command: &[&str]) -> anyhow::Result<Pod> {
    let plan = PodPlan {
        namespace: "ambient".into(),
        name: name.into(),
        node: "n2".into(),
        account: name.into(),
        labels: vec![format!("app={name}")],
        services: services.iter().map(|one| (*one).to_owned()).collect(),
        ..PodPlan::default()
    };
    standard.mesh.run(&plan, command).await
}

async fn grpc(standard: &Standard, client: &str, peers: &std::path::Path) -> anyhow::Result<String> {
    let program = peers.join("grpc-client");
    let program = program.to_str().context("a path")?;
    let pod = standard.client(client)?;
    for case in CASES {
        let command = [
            program,
            "--server_host",
            "interop.ambient",
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

async fn curl(standard: &Standard, client: &str, served: &Served) -> anyhow::Result<String> {
    let script = "curl -sSf -m 60 http://nginx.ambient/file | sha256sum; \
                  curl -sSf -m 20 -o /dev/null -o /dev/null -w '%{num_connects} ' http://nginx.ambient/nginx.conf http://nginx.ambient/nginx.conf; \
                  curl -sS -m 20 -o /dev/null -w '%{http_code}' http://nginx.ambient/absent";
    let printed = until_printed(
        standard,
        client,
        &["bash", "-euo", "pipefail", "-c", script],
        |printed| printed.starts_with(&served.sum),
    )
    .await?;
    ensure!(printed.trim_end().ends_with("1 0 404"), "{printed:?}");
    Ok(format!(
        "{} bytes with the right checksum; a kept connection; a 404 of nginx's own",
        served.bytes
    ))
}

async fn h2load(standard: &Standard, client: &str) -> anyhow::Result<String> {
    let command = [
        "h2load",
        "-n",
        "2000",
        "-c",
        "8",
        "-m",
        "10",
        "http://nginx2.ambient/nginx.conf",
    ];
    let printed = standard.mesh.exec(standard.client(client)?, &command).await?;
    let line = printed
        .lines()
        .find(|line| line.starts_with("requests:"))
        .context("no totals")?;
    ensure!(line.contains("2000 succeeded, 0 failed, 0 errored"), "{line}");
    Ok(line.to_owned())
}

async fn websocket(standard: &Standard, client: &str) -> anyhow::Result<String> {
    let command = ["/usr/bin/python3", "-c", ECHO_CLIENT, "ws://echo.ambient/"];
    let printed = until_printed(standard, client, &command, |printed| printed.contains("closed")).await?;
    ensure!(printed.trim() == "closed 1000", "{printed:?}");
    Ok("102 messages there and back, of them one of a megabyte; closed in order".into())
}
