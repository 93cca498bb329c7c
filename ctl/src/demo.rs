//! `trefoilctl demo`: one mesh on this machine, with workloads in sidecars, on the nodes' proxies and outside,
//! and what a user would do to it. It tells only what the planes and the programs themselves say.

pub(crate) mod access;
mod cast;
mod pairs;
mod policy;
mod shop;
mod switch;

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use trefoil_local::down::down;
use trefoil_local::mesh::Mesh;
use trefoil_local::protocol::PodRequest;
use trefoil_local::{api, run, up};

use crate::output::{Format, Tone, toned};
use crate::planes::Planes;
use crate::status;
use cast::Member;

/// The demonstration while it runs.
pub(crate) struct Demo {
    mesh: Mesh,
    planes: Planes,
    members: Vec<Member>,
    shop: Vec<Member>,
}

/// Shows everything, and removes it, also when interrupted.
pub(crate) async fn run(mesh: Mesh) -> anyhow::Result<i32> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let started = Instant::now();
    let mut asked_to_end = async || {
        tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
        }
    };
    let mut shown = tokio::select! {
        shown = show(&mesh) => shown.map(|()| 0),
        code = asked_to_end() => Ok(code),
    };
    // The terminal interrupts what was started here, too, and its end may be seen first.
    if shown.is_err()
        && let Ok(code) = tokio::time::timeout(Duration::from_millis(50), asked_to_end()).await
    {
        shown = Ok(code);
    }
    down(&mesh).await?;
    if let Ok(0) = shown {
        println!(
            "\n{}",
            toned(
                Tone::Faint,
                &format!(
                    "everything is removed again; {:.0} s",
                    started.elapsed().as_secs_f32()
                )
            )
        );
    }
    shown
}

async fn show(mesh: &Mesh) -> anyhow::Result<()> {
    heading("A mesh on this machine: two nodes, a control plane, an agent and a node proxy on each");
    let path = std::env::var_os("PATH").unwrap_or_default();
    anyhow::ensure!(
        std::env::split_paths(&path).any(|folder| folder.join("redis-server").exists()),
        "redis-server is not installed: `apt-get install redis-server`, or `make demo`, which does"
    );
    let began = Instant::now();
    // One that an earlier demonstration left.
    down(mesh).await?;
    up::start(mesh, &options()).await?;
    println!("up in {:.1} s", began.elapsed().as_secs_f32());
    let client = api::client(&mesh.kubeconfig()).await?;
    let planes = Planes::new(client, Some(mesh.clone()));
    let mut demo = Demo {
        mesh: mesh.clone(),
        planes,
        members: cast::members(),
        shop: cast::shop(),
    };
    demo.start().await?;
    pairs::show(&demo).await?;
    demo.batch().await?;
    policy::show(&demo).await?;
    switch::show(&demo).await?;
    shop::show(&mut demo).await?;
    heading("What trefoilctl status says");
    let well = status::print(&status::gather(&demo.planes).await?, Format::default())?;
    anyhow::ensure!(well, "something of the mesh is not as it should be");
    Ok(())
}

fn options() -> up::Options {
    up::Options {
        nodes: 2,
        certificate_lifetime: None,
        isolation: None,
    }
}

/// A heading of the story.
fn heading(text: &str) {
    println!("\n{}", toned(Tone::Strong, text));
}

impl Demo {
    async fn start(&mut self) -> anyhow::Result<()> {
        let mesh = &self.mesh;
        for namespace in ["sidecar", "ambient", "none"] {
            let client = self.planes.client();
            trefoil_local::objects::create_namespace(client, namespace, Some(namespace)).await?;
        }
        let began = Instant::now();
        futures::future::try_join_all(self.members.iter_mut().map(|member| member.start(mesh))).await?;
        println!(
            "{} pods in {:.1} s: a web front end and its orders, an API in two replicas, a Redis, two programs outside the mesh",
            self.members.len(),
            began.elapsed().as_secs_f32()
        );
        Ok(())
    }

    /// A member.
    fn member(&self, name: &str) -> anyhow::Result<&Member> {
        let mut all = self.members.iter().chain(&self.shop);
        all.find(|member| member.name == name)
            .with_context(|| format!("{name} does not play"))
    }

    /// What redirects a member now: `sidecar`, `node` or `none`.
    async fn plane(&self, member: &Member) -> anyhow::Result<String> {
        let config = crate::config::gather(&self.planes, &member.full_name()).await?;
        Ok(config.redirection)
    }

    /// A client that does its work and ends, as a Job does.
    async fn batch(&self) -> anyhow::Result<()> {
        heading("A batch client in the mesh that ends");
        let web = self.member("web")?;
        let command = vec![
            cast::program()?,
            "demo-app".into(),
            "call".into(),
            web.service_address(),
        ];
        let request = PodRequest {
            namespace: "ambient".into(),
            name: "batch".into(),
            service_account: "batch".into(),
            command,
            ..PodRequest::default()
        };
        let code = run::run(&self.mesh, request).await?;
        println!("ambient/batch ended with exit code {code}");
        anyhow::ensure!(code == 0, "the batch client failed");
        Ok(())
    }
}
