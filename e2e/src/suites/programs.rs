//! Real programs through both planes, in both directions: what a mesh must carry without knowing it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::nginx::{self, Site};
use crate::kernel::established;
use crate::mesh::standard::Standard;
use crate::mesh::{Pod, PodPlan, eventually};
use crate::programs::bulk::Transfer;
use crate::programs::load::Tally;
use crate::programs::port;
use crate::report::Report;

mod databases;
mod endings;

/// A gigabyte; debug builds of the test programs would take minutes to check one.
const GIGABYTE: u64 = if cfg!(debug_assertions) { 1 << 26 } else { 1 << 30 };

/// Client's namespace and server's.
const DIRECTIONS: [(&str, &str); 2] = [("ambient", "sidecar"), ("sidecar", "ambient")];

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("programs"), &[]).await?;
    let files = tempfile::tempdir()?;
    for (client, server) in DIRECTIONS {
        let path = Route {
            client: standard.client(client)?,
            server: standard.server(server, "n2")?,
            standard: &standard,
        };
        let mut check = |name: &str, result| {
            report.check(format!("{client} → {server}, {name}"), result);
        };
        check(
            "a gigabyte each way",
            path.transfer("plain", GIGABYTE, GIGABYTE).await,
        );
        check("half-close", path.transfer("half-close", 1 << 20, 1 << 20).await);
        check("slow reader", path.transfer("slow-reader", 0, 8 << 20).await);
        check("slow writer", path.transfer("slow-writer", 4 << 20, 0).await);
        check("reset", path.reset().await);
        check("1,000 idle connections", path.idle().await);
        check("server speaks first", path.greeting().await);
        check("Redis with pipelining", databases::redis(&path, server).await);
        for result in databases::postgres(&path, server, files.path()).await {
            check(result.0, result.1);
        }
        check("nginx and curl", web(&path, server, files.path()).await);
        check("SSH", ssh(&path, server, files.path()).await);
        check(
            "a headless service's names",
            endings::stateful(&path, server).await,
        );
        check("a job that ends", endings::job(&path, client).await);
    }
    standard.mesh.down().await
}

/// From a client to a server.
struct Route<'a> {
    standard: &'a Standard,
    client: &'a Pod,
    server: &'a Pod,
}

impl Route<'_> {
    /// A command in the client; its output.
    async fn client(&self, command: &[&str]) -> anyhow::Result<String> {
        self.standard.mesh.exec(self.client, command).await
    }

    /// A shell's script in the client; its output.
    async fn shell(&self, script: &str) -> anyhow::Result<String> {
        self.client(&["bash", "-euo", "pipefail", "-c", script]).await
    }

    /// A pod with a real program, on the server's node.
    async fn run(&self, name: &str, namespace: &str, port: u16, command: &[&str]) -> anyhow::Result<Pod> {
        let plan = PodPlan {
            namespace: namespace.into(),
            name: name.into(),
            node: self.server.node.clone(),
            account: "server".into(),
            labels: vec![format!("app={name}")],
            ports: vec![port],
            services: vec![format!("{name}:{port}")],
            ..PodPlan::default()
        };
        self.standard.mesh.run(&plan, command).await
    }

    async fn transfer(&self, behaviour: &str, up: u64, down: u64) -> anyhow::Result<String> {
        let target = self.server.at(port::BULK).to_string();
        let (up_text, down_text) = (up.to_string(), down.to_string());
        let arguments = [
            "transfer",
            "--target",
            &target,
            "--behaviour",
            behaviour,
            "--up",
            &up_text,
            "--down",
            &down_text,
        ];
        let done: Transfer = self.standard.mesh.program_in(self.client, &arguments).await?;
        ensure!(done.up == up && done.down == down, "{done:?}");
        Ok(format!(
            "{up} bytes there and {down} back, checksums agree, {} ms",
            done.milliseconds
        ))
    }

    /// A reset by the client must reach the server and harm nobody else.
    async fn reset(&self) -> anyhow::Result<String> {
        let program = self.standard.mesh.program()?;
        let target = self.server.at(port::BULK).to_string();
        for _ in 0..5 {
            self.client(&[&program, "reset", "--target", &target]).await?;
        }
        let netns = self.standard.mesh.netns(self.server);
        eventually(Duration::from_secs(10), async || {
            let open = established(&netns, &format!("( sport = :{} )", port::BULK)).await?;
            ensure!(open.is_empty(), "the server still holds {open:?}");
            Ok(())
        })
        .await?;
        self.transfer("plain", 1 << 16, 1 << 16).await?;
        Ok("5 resets reached the server; the next transfer is whole".into())
    }

    async fn idle(&self) -> anyhow::Result<String> {
        let target = self.server.at(port::TCP).to_string();
        let arguments = [
            "load",
            "--protocol",
            "tcp",
            "--target",
            &target,
            "--rate",
            "250",
            "--seconds",
            "12",
            "--connections",
            "1000",
        ];
        let tally: Tally = self.standard.mesh.program_in(self.client, &arguments).await?;
        ensure!(
            tally.connections == 1000 && tally.connections_lost == 0,
            "{tally}"
        );
        ensure!(tally.lost() == 0 && tally.served >= 2000, "{tally}");
        Ok(tally.to_string())
    }

    async fn greeting(&self) -> anyhow::Result<String> {
        let target = self.server.at(port::GREETING).to_string();
        let arguments = [
            "load",
            "--protocol",
            "greeting",
            "--target",
            &target,
            "--rate",
            "50",
            "--seconds",
            "2",
        ];
        let tally: Tally = self.standard.mesh.program_in(self.client, &arguments).await?;
        ensure!(tally.lost() == 0 && tally.served >= 80, "{tally}");
        Ok(tally.to_string())
    }
}

/// nginx serves a file of 10 MB, curl fetches it, checksums agree.
async fn web(route: &Route<'_>, namespace: &str, files: &Path) -> anyhow::Result<String> {
    let site = Site::make(&files.join(format!("web-{namespace}")), 10_000_000)?;
    let pod = route
        .run("nginx", namespace, nginx::PLAIN, &site.command())
        .await?;
    let address = pod.at(nginx::PLAIN);
    let fetched = route
        .shell(&format!(
            "for i in 1 2 3; do curl -sSf -m 20 http://{address}/file | sha256sum; done"
        ))
        .await?;
    ensure!(
        fetched.lines().count() == 3 && fetched.lines().all(|line| line.starts_with(&site.sum)),
        "other bytes came"
    );
    let host = format!("nginx.{namespace}.svc.cluster.local");
    route
        .client(&[
            "curl",
            "-sSf",
            "-m",
            "10",
            "-o",
            "/dev/null",
            &format!("http://{host}:{}/file", nginx::PLAIN),
        ])
        .await?;
    Ok("3 × 10 MB with the right checksum; by the service's name too".into())
}

/// A real server-first protocol: the keys of an SSH server.
async fn ssh(route: &Route<'_>, namespace: &str, files: &Path) -> anyhow::Result<String> {
    let key = files.join(format!("ssh-{namespace}"));
    let path = key.to_str().context("a path")?;
    let generated = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", path])
        .status()?;
    ensure!(generated.success(), "ssh-keygen: {generated}");
    std::fs::create_dir_all("/run/sshd")?;
    let pod = route
        .run(
            "ssh",
            namespace,
            2222,
            &[
                "/usr/sbin/sshd",
                "-D",
                "-e",
                "-p",
                "2222",
                "-h",
                path,
                "-f",
                "/dev/null",
            ],
        )
        .await?;
    let address = pod.addresses[0].to_string();
    let seen = route
        .client(&["ssh-keyscan", "-T", "10", "-t", "ed25519", "-p", "2222", &address])
        .await?;
    let public = std::fs::read_to_string(key.with_extension("pub"))?;
    let wanted = public.split_whitespace().nth(1).context("a public key")?;
    ensure!(seen.contains(wanted), "the server's key did not come: {seen:?}");
    Ok("the server's banner and key came".into())
}
