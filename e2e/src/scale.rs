//! The control plane before a fleet: real streams over TLS with real tokens, objects in the embedded store, and nothing
//! behind the pods. It measures, and it says what must hold: a change is encoded once, sent once to each client that is
//! to have it and to nobody else, and a fleet that comes again is sent nothing that it holds.

pub mod agent;
pub mod changes;
pub mod client;
pub mod fleet;
pub mod ledger;
pub mod message;
pub mod objects;
pub mod processes;
pub mod signing;
pub mod stream;
pub mod table;

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context;

use changes::{Ground, Kind, Round};
use fleet::Fleet;
use objects::{Objects, Size};
use processes::{Process, Used};
use signing::Signing;

use crate::mesh::eventually;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// How large the mesh is.
    #[command(flatten)]
    pub size: Size,
    /// Changes in each round.
    #[arg(long, default_value_t = 1000)]
    pub changes: usize,
    /// Changes a second.
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
    /// Certificates that are asked for.
    #[arg(long, default_value_t = 10_000)]
    pub certificates: usize,
    /// The control plane; without it, the one beside this program.
    #[arg(long)]
    pub control_plane: Option<PathBuf>,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Clients, without agents.
    pub clients: usize,
    /// Making all objects.
    pub made: Duration,
    /// From the control plane's start until it serves.
    pub started: Duration,
    /// From the first connection to the last client's first answer about workloads.
    pub connected: Duration,
    /// Bytes of resources that this took.
    pub first_bytes: u64,
    /// Changes of pods' labels.
    pub labels: Round,
    /// Changes of endpoint slices.
    pub endpoints: Round,
    /// The control plane, with its fleet, before it was restarted.
    pub held: Used,
    /// The API.
    pub api: Used,
    /// From the kill to the last client's first answer about workloads.
    pub reconnected: Duration,
    /// CPU of the control plane from its start until then.
    pub reconnect_cpu: Duration,
    /// The control plane thereafter.
    pub after: Used,
    /// Resources, and removals, that the fleet was sent when it came again.
    pub resent: (u64, u64),
    /// Resources that clients held in that very version, and such as they had no use for, over all of it.
    pub wrong: (u64, u64),
    /// Certificates.
    pub signing: Signing,
}

/// How long nothing may come once a fleet has all.
const QUIET: Duration = Duration::from_secs(1);

/// Measures.
pub async fn run(plan: &Plan) -> anyhow::Result<Figures> {
    let program = match &plan.control_plane {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("trefoil-control-plane"),
    };
    let folder = tempfile::tempdir()?;
    let (api, client) = Process::api(&program, folder.path()).await?;
    let objects = Objects::new(client, plan.size);
    let begun = Instant::now();
    let uids = objects.make().await.context("making the objects")?;
    let mut fleet = Fleet::prepare(&objects, plan.size, &uids)
        .await
        .context("getting tokens")?;
    let made = begun.elapsed();
    eprintln!("objects: {made:?}");
    let begun = Instant::now();
    let mut control_plane = Process::control_plane(&program, folder.path()).await?;
    let started = begun.elapsed();
    eprintln!("started: {started:?}, {:?}", control_plane.used()?);
    let roots = eventually(Duration::from_secs(30), async || objects.roots().await).await?;
    let connected = fleet.connect(&control_plane, &roots).await?;
    fleet.quiet(QUIET).await;
    eprintln!("connected: {connected:?}, {:?}", control_plane.used()?);
    let mut figures = Figures {
        clients: fleet.clients.len(),
        made,
        started,
        connected,
        first_bytes: fleet.ledger.bytes.load(Relaxed),
        ..Figures::default()
    };
    let ground = Ground {
        size: plan.size,
        objects: &objects,
        fleet: &fleet,
        control_plane: &control_plane,
        api: &api,
    };
    figures.labels = ground.round(Kind::Label, plan.changes, plan.rate).await?;
    figures.endpoints = ground.round(Kind::Endpoint, plan.changes, plan.rate).await?;
    figures.signing = ground.sign(plan.certificates).await?;
    figures.held = control_plane.used()?;
    restart(&mut figures, &fleet, &mut control_plane).await?;
    figures.api = api.used()?;
    Ok(figures)
}

/// Kills the control plane, and waits until the whole fleet is served by another.
async fn restart(figures: &mut Figures, fleet: &Fleet, control_plane: &mut Process) -> anyhow::Result<()> {
    let ledger = &fleet.ledger;
    let before = (ledger.resources.load(Relaxed), ledger.removed.load(Relaxed));
    let begun = Instant::now();
    control_plane.restart().await?;
    figures.reconnected = fleet.answered_since(begun).await?;
    figures.reconnect_cpu = control_plane.used()?.cpu;
    fleet.quiet(QUIET).await;
    figures.after = control_plane.used()?;
    figures.resent = (
        ledger.resources.load(Relaxed) - before.0,
        ledger.removed.load(Relaxed) - before.1,
    );
    figures.wrong = (ledger.again.load(Relaxed), ledger.unasked.load(Relaxed));
    Ok(())
}
