//! The suites. Each brings up a mesh of its own, states how many checks it makes at least, and leaves
//! nothing behind.

mod asking;
mod commands;
mod demo;
mod dns;
mod fleet;
mod foreign;
mod http;
mod kubernetes;
mod layers;
mod limits;
mod matrix;
mod nginx;
mod programs;
mod requests;
mod survival;
mod switch;
mod theft;
mod waypoint;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::mesh::Mesh;
use crate::report::Report;

pub use kubernetes::OnKubernetes;

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

struct Suite {
    name: &'static str,
    /// The fewest checks that it makes.
    minimum: usize,
    run: for<'a> fn(&'a mut Report) -> Running<'a>,
}

/// All suites, in the order in which they are best read.
const SUITES: &[Suite] = &[
    Suite {
        name: "demo",
        minimum: 43,
        run: |report| Box::pin(demo::run(report)),
    },
    Suite {
        name: "matrix",
        minimum: 63,
        run: |report| Box::pin(matrix::run(report)),
    },
    Suite {
        name: "programs",
        minimum: 28,
        run: |report| Box::pin(programs::run(report)),
    },
    Suite {
        name: "switch",
        minimum: 13,
        run: |report| Box::pin(switch::run(report)),
    },
    Suite {
        name: "survival",
        minimum: 44,
        run: |report| Box::pin(survival::run(report)),
    },
    Suite {
        name: "nothing-to-steal",
        minimum: 20,
        run: |report| Box::pin(theft::run(report)),
    },
    Suite {
        name: "who-may-ask",
        minimum: 50,
        run: |report| Box::pin(asking::run(report)),
    },
    Suite {
        name: "layers",
        minimum: 34,
        run: |report| Box::pin(layers::run(report)),
    },
    Suite {
        name: "limits",
        minimum: 5,
        run: |report| Box::pin(limits::run(report)),
    },
    Suite {
        name: "fleet",
        minimum: 7,
        run: |report| Box::pin(fleet::run(report)),
    },
    Suite {
        name: "commands",
        minimum: 11,
        run: |report| Box::pin(commands::run(report)),
    },
    Suite {
        name: "ztunnel",
        minimum: 35,
        run: |report| Box::pin(foreign::run(report)),
    },
    Suite {
        name: "requests",
        minimum: 20,
        run: |report| Box::pin(requests::run(report)),
    },
    Suite {
        name: "waypoint",
        minimum: 86,
        run: |report| Box::pin(waypoint::run(report)),
    },
    Suite {
        name: "dns",
        minimum: 20,
        run: |report| Box::pin(dns::run(report)),
    },
    Suite {
        name: "away",
        minimum: 5,
        run: |report| Box::pin(survival::away::run(report)),
    },
];

/// The names of all suites.
pub fn names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|suite| suite.name)
}

/// The mesh that a suite makes for itself.
fn mesh_of(suite: &str) -> String {
    format!("e2e{}", suite.replace('-', ""))
}

/// Runs suites by name, all of them if none is named; how many checks failed.
pub async fn run(wanted: &[String]) -> anyhow::Result<usize> {
    if let Some(unknown) = wanted.iter().find(|name| !names().any(|known| known == *name)) {
        bail!(
            "no suite {unknown:?}; there are {}",
            names().collect::<Vec<_>>().join(", ")
        );
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        failed = run_all(wanted) => Ok(failed),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("interrupted"),
    }
}

async fn run_all(wanted: &[String]) -> usize {
    let mut failed = 0;
    let chosen = |suite: &&Suite| wanted.is_empty() || wanted.iter().any(|name| name == suite.name);
    for suite in SUITES.iter().filter(chosen) {
        let begun = Instant::now();
        let mut report = Report::new(suite.name);
        if let Err(error) = (suite.run)(&mut report).await {
            report.check("the suite runs to its end", Err::<&str, _>(error));
        }
        report.close(suite.minimum);
        report.note(format_args!("took {} s", begun.elapsed().as_secs()));
        failed += report.failed();
    }
    failed
}

/// Runs the smoke test against a cluster that is up; how many checks failed.
pub async fn run_on_kubernetes(ground: OnKubernetes) -> usize {
    let mut report = Report::new("kubernetes");
    let minimum = ground.minimum();
    if let Err(error) = kubernetes::run(&mut report, ground).await {
        report.check("the suite runs to its end", Err::<&str, _>(error));
    }
    report.close(minimum);
    report.failed()
}

/// Removes the meshes that interrupted suites left.
pub async fn clean() -> anyhow::Result<()> {
    for suite in names() {
        Mesh::clean(&mesh_of(suite)).await.context(suite)?;
    }
    Mesh::clean(demo::MESH).await
}
