//! A plane that is stuck, killed, or told not to: names are found nevertheless.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use super::{CAPTURED, Names, SERVER};
use crate::mesh::eventually;
use crate::mesh::processes::{Part, signal};
use crate::mesh::{Mesh, Pod};
use crate::programs::names::SAID_V4;
use crate::report::Report;

/// As stub resolvers ask, but for the time: again from the same socket.
const RESOLVER: [&str; 4] = ["--attempts", "5", "--again", "1000"];
/// How long a switch may take.
const SWITCHED: Duration = Duration::from_secs(20);

pub(super) async fn run(names: &Names, report: &mut Report) -> anyhow::Result<()> {
    for namespace in CAPTURED {
        let client = names.standard.client(namespace)?.clone();
        report.check(
            format!("{namespace}: a plane that is stuck"),
            names.stuck(&client).await,
        );
        report.check(
            format!("{namespace}: a plane that is killed"),
            names.killed(&client).await,
        );
        let result = names.disabled(namespace, &client).await;
        report.check(format!("{namespace}: off and on again by a label"), result);
    }
    report.check("a namespace that changes plane and back", names.switched().await);
    Ok(())
}

impl Names {
    /// The processes that answer a pod's queries.
    fn plane_of(&self, client: &Pod) -> anyhow::Result<Vec<u32>> {
        match client.sidecar {
            Some(process) => Ok(vec![process]),
            None => self.mesh().processes_of(Part::Worker, &client.node),
        }
    }

    async fn stuck(&self, client: &Pod) -> anyhow::Result<String> {
        let processes = self.plane_of(client)?;
        let halted = Halted::new(&processes)?;
        let told = self.ask(client, &RESOLVER, &[SERVER, "www.example.com."]).await?;
        for told in &told {
            ensure!(told.addresses == [IpAddr::V4(SAID_V4)], "{told:?}");
        }
        let tcp = self.ask(client, &["--tcp"], &["www.example.com."]).await?;
        ensure!(tcp[0].addresses == [IpAddr::V4(SAID_V4)], "{tcp:?}");
        drop(halted);
        self.answered(client).await?;
        Ok(format!(
            "the resolver answered after {} ms, then after {} ms; the plane again when it went on",
            told[0].milliseconds, told[1].milliseconds
        ))
    }

    /// Asks all the while that a plane is killed and comes back.
    async fn killed(&self, client: &Pod) -> anyhow::Result<String> {
        let processes = self.plane_of(client)?;
        for process in &processes {
            signal(*process, Signal::KILL)?;
        }
        let mut slowest = 0;
        for _ in 0..10 {
            let told = self.ask(client, &RESOLVER, &[SERVER, "www.example.com."]).await?;
            for told in told {
                let right = [self.server[0], IpAddr::V4(SAID_V4)];
                ensure!(
                    told.addresses.len() == 1 && right.contains(&told.addresses[0]),
                    "{told:?}"
                );
                slowest = slowest.max(told.milliseconds);
            }
        }
        self.answered(client).await?;
        Ok(format!("20 queries, none lost, the slowest took {slowest} ms"))
    }

    /// Two names, each found by whoever answers.
    async fn found(&self, client: &Pod) -> anyhow::Result<usize> {
        let told = self.ask(client, &RESOLVER, &[SERVER, "www.example.com."]).await?;
        let right = [self.server[0], IpAddr::V4(SAID_V4)];
        for told in &told {
            ensure!(
                told.addresses.len() == 1 && right.contains(&told.addresses[0]),
                "{told:?}"
            );
        }
        Ok(told.len())
    }

    async fn disabled(&self, namespace: &str, client: &Pod) -> anyhow::Result<String> {
        self.mesh().say_of_capture(namespace, "disabled").await?;
        eventually(Duration::from_secs(10), async || self.by_resolver(client).await).await?;
        self.mesh().say_of_capture(namespace, "enabled").await?;
        self.answered(client).await?;
        Ok("the resolver answered, then the plane".into())
    }

    /// Asks all the while that the sidecars' namespace goes to the node proxy and comes back.
    async fn switched(&self) -> anyhow::Result<String> {
        let client = self.standard.client("sidecar")?;
        let mut asked = 0;
        for (mode, plane) in [
            ("ambient", "node"),
            ("sidecar", "sidecar"),
            ("none", "none"),
            ("sidecar", "sidecar"),
        ] {
            self.mesh().label_namespace("sidecar", mode).await?;
            let begun = Instant::now();
            while self.mesh().redirection(client).await? != plane {
                asked += self.found(client).await?;
                ensure!(
                    begun.elapsed() < SWITCHED,
                    "not on plane {plane} after {SWITCHED:?}"
                );
            }
            for _ in 0..5 {
                asked += self.found(client).await?;
            }
            if mode != "none" {
                self.answered(client)
                    .await
                    .with_context(|| format!("in mode {mode}"))?;
            }
        }
        Ok(format!("{asked} queries on the way, none lost"))
    }
}

/// Processes that do nothing until it is dropped.
struct Halted(Vec<u32>);

impl Halted {
    fn new(processes: &[u32]) -> anyhow::Result<Self> {
        let halted = Self(processes.to_vec());
        for process in processes {
            signal(*process, Signal::STOP)?;
        }
        Ok(halted)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        for process in &self.0 {
            // One that ended meanwhile is not halted.
            signal(*process, Signal::CONT).ok();
        }
    }
}

impl Mesh {
    /// Says of a namespace whether queries are captured.
    async fn say_of_capture(&self, namespace: &str, value: &str) -> anyhow::Result<()> {
        use k8s_openapi::api::core::v1::Namespace;
        use kube::api::{Api, Patch, PatchParams};
        let labels = serde_json::json!({ "metadata": { "labels": { "trefoil.dev/dns-capture": value } } });
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        namespaces
            .patch(namespace, &PatchParams::default(), &Patch::Merge(labels))
            .await?;
        Ok(())
    }
}
