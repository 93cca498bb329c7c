//! A worker: owns connections, and the keys of its own pods' identities. It has no privilege, no way into
//! a pod's namespace and no token; what it lacks it asks the supervisor for, over the one channel it has.

mod channel;
mod inbox;
mod keys;
mod privileges;
mod signer;
mod sockets;

use std::sync::Arc;

use prometheus_client::registry::Registry;
use trefoil_api::proto::trefoil::worker::{Ready, from_worker};
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::proxy::{Proxy, ProxyConfig, ProxyParts};
use trefoil_dataplane_core::telemetry::{Layer, Metrics};
use trefoil_dataplane_dns::Dns;
use trefoil_dataplane_process::admin::{Admin, Format, LogLevel};
use trefoil_dataplane_process::{memory, metrics_server};
use trefoil_dataplane_state::certificates::Settings;
use trefoil_dataplane_state::{Certificates, Store};
use trefoil_packets::PacketSocket;

use self::channel::Outbox;
use self::inbox::Inbox;
use self::signer::ChannelSigner;
use self::sockets::Pools;
use crate::flags::{LogFormat, WorkerFlags};

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It could not make itself harmless.
    #[error(transparent)]
    Privileges(#[from] privileges::PrivilegeError),
    /// Something that it cannot be without.
    #[error("worker: {0}")]
    Start(#[from] std::io::Error),
    /// No log.
    #[error("worker: {0}")]
    Log(#[from] trefoil_dataplane_process::admin::LogError),
    /// The channel to the supervisor failed.
    #[error("worker: {0}")]
    Channel(#[from] trefoil_packets::PacketError),
    /// The supervisor sent what is not understood.
    #[error("worker: the supervisor broke the protocol: {0}")]
    Protocol(&'static str),
}

/// Runs a worker until the supervisor ends it or goes away. To be called before any thread is started.
pub fn run(flags: &WorkerFlags) -> Result<(), WorkerError> {
    let channel = privileges::take_channel()?;
    privileges::shed(flags.user)?;
    let format = match flags.log.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let level = LogLevel::init(&flags.log.log_level, format)?;
    memory::keep_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(flags.threads))
        .thread_name("worker")
        .enable_all()
        .build()?;
    let served = runtime.block_on(async { serve(PacketSocket::new(channel)?, level).await });
    // Whatever still runs belongs to nobody: the channel is gone or the deadline has passed.
    runtime.shutdown_background();
    served
}

async fn serve(socket: PacketSocket, level: LogLevel) -> Result<(), WorkerError> {
    let socket = Arc::new(socket);
    let outbox = Outbox::start(Arc::clone(&socket));
    let signer = Arc::new(ChannelSigner::new(outbox.clone()));
    let store = Store::new();
    let certificates = Certificates::new(Arc::clone(&signer) as Arc<_>, Settings::default());
    certificates.follow_authority(&store);
    let drain = Drain::new();
    let mut registry = Registry::default();
    certificates.register(registry.sub_registry_with_prefix("trefoil"));
    let proxy = Proxy::new(ProxyParts {
        store: store.clone(),
        certificates: Arc::clone(&certificates),
        metrics: Metrics::register(&mut registry),
        config: ProxyConfig::of(Layer::Node),
        drain: drain.clone(),
    });
    let queries = trefoil_dataplane_dns::Metrics::register(registry.sub_registry_with_prefix("trefoil"));
    let dns = Dns::new(store.clone(), queries, trefoil_dataplane_dns::Config::default());
    let admin = admin(&drain, level, &store, &certificates, &proxy);
    let admin = admin.merge(metrics_server::router(Arc::new(registry)));
    tokio::spawn(keys::store(Arc::clone(&certificates), outbox.clone()));
    tokio::spawn(say_when_ready(store.clone(), outbox.clone()));
    let inbox = Inbox {
        pools: Arc::new(Pools::new(outbox.clone())),
        outbox,
        signer,
        certificates,
        store,
        proxy,
        dns,
        admin,
        drain,
        served: Arc::default(),
    };
    inbox.run(&socket).await
}

fn admin(
    drain: &Drain,
    level: LogLevel,
    store: &Store,
    certificates: &Arc<Certificates>,
    proxy: &Arc<Proxy>,
) -> axum::Router {
    let certificates = Arc::clone(certificates);
    Admin::new(drain.clone(), level)
        .with_store(store)
        .with("/certificates", move || {
            std::future::ready(serde_json::json!({ "certificates": certificates.summaries() }))
        })
        .with_proxy(proxy)
        .into_routes()
}

async fn say_when_ready(store: Store, outbox: Outbox) {
    let awaiting = vec!["policies and workloads".to_owned()];
    outbox.send(from_worker::Payload::Ready(Ready { pending: awaiting }));
    store.until_synced().await;
    outbox.send(from_worker::Payload::Ready(Ready::default()));
}
