//! `trefoil-control-plane`: parses flags, builds the parts, runs until a signal, drains.

mod ask;
mod flags;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use kube::CustomResourceExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt, reload};
use trefoil_api::crd::{AuthorizationPolicy, PeerAuthentication};
use trefoil_control_plane::assemble::{ControlPlane, Options};
use trefoil_control_plane::deployment::Settings;
use trefoil_control_plane::serve::admin::LogLevel;
use trefoil_embedded_api::{self as embedded, EmbeddedConfig};

use crate::flags::{Command, Flags, LogFormat, Run};

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match flags.command {
        Command::Run(flags) => runtime.block_on(run(*flags)),
        Command::Admin(admin) => runtime.block_on(ask::ask(&admin)),
        Command::Crds => print_kinds(),
    }
}

/// The definitions of the mesh's own kinds, as a list.
fn print_kinds() -> anyhow::Result<()> {
    let kinds = [AuthorizationPolicy::crd(), PeerAuthentication::crd()];
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": kinds});
    println!("{}", serde_json::to_string_pretty(&list)?);
    Ok(())
}

async fn run(flags: Run) -> anyhow::Result<()> {
    let log_level = log(&flags)?;
    // Another version of a dependency may bring a second provider: this one is meant.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let drain = CancellationToken::new();
    watch_signals(&drain)?;
    let api = match &flags.store {
        Some(store) => Some(embedded(&flags, store).await?),
        None => None,
    };
    let client = client(&flags, api.as_ref()).await?;
    let options = Options {
        listen: flags.listen,
        metrics_listen: flags.metrics_listen,
        admin_socket: Some(flags.admin_socket.clone()),
        webhook_listen: Some(flags.webhook_listen),
        sidecar_image: flags.sidecar_image.clone(),
        waypoint: Settings {
            image: flags.waypoint_image.clone(),
            pull_policy: flags.waypoint_pull_policy.clone(),
        },
        trust_domain: flags.trust_domain.clone(),
        token_audiences: flags.audiences(),
        node_accounts: flags.node_accounts(),
        flags: serde_json::to_value(&flags)?,
        log_level,
        drain: drain.clone(),
    };
    let control_plane = ControlPlane::start(client, options).await?;
    drain.cancelled().await;
    tracing::info!("draining");
    let deadline = Duration::from_secs(flags.drain_deadline);
    control_plane.stop(deadline).await;
    if let Some(api) = api {
        api.shutdown().await;
    }
    Ok(())
}

async fn embedded(flags: &Run, store: &std::path::Path) -> anyhow::Result<embedded::Embedded> {
    let config = EmbeddedConfig {
        store_dir: store.to_owned(),
        listen: flags.api_listen.clone(),
        kubeconfig_out: flags.kubeconfig_out.clone(),
        validate: Arc::new(trefoil_api::crd::validate),
    };
    embedded::start(config).await.context("embedded API")
}

async fn client(flags: &Run, api: Option<&embedded::Embedded>) -> anyhow::Result<kube::Client> {
    let options = KubeConfigOptions::default();
    let config = match (api, &flags.kubeconfig) {
        (Some(api), _) => {
            let kubeconfig: Kubeconfig = serde_json::from_value(api.kubeconfig().clone())?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?
        }
        (None, Some(path)) => {
            let kubeconfig = Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?
        }
        (None, None) => {
            kube::Config::incluster().context("no --store, no --kubeconfig, and not in a cluster")?
        }
    };
    Ok(kube::Client::try_from(config)?)
}

/// The first signal drains, the second aborts.
fn watch_signals(drain: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let drain = drain.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if drain.is_cancelled() {
                std::process::exit(130);
            }
            drain.cancel();
        }
    });
    Ok(())
}

/// Logs to stderr; what is logged can be changed later.
fn log(flags: &Run) -> anyhow::Result<LogLevel> {
    let filter = EnvFilter::try_new(&flags.log_level).context("--log-level")?;
    let (filter, handle) = reload::Layer::new(filter);
    let layer = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let layer = match flags.log_format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()?;
    let change = move |directives: &str| {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    Ok(LogLevel {
        current: Arc::new(Mutex::new(flags.log_level.clone())),
        change: Arc::new(change),
    })
}
